/**
 * Schedules of noise levels by their offsets: level[m][f] = clip(steps + offset[f] - m, 0, steps). As modules/sampling/schedules.py, which says
 * what each of them is and where it is from; tests/web/test_widget_numbers.py compares the two.
 */

import { gaps, knownFrames, onlyAtTheStart, widest } from "./known_frames.js";

const MOST_ROWS = 4_000_000; // what a browser counts through while someone drags a number

/** The rows that the generated frames wait: (how many, steps, lag, frames in a block) -> array. */
export const SCHEDULES = {
  pyramid: (n, steps, lag, block) => blocks(n, block).map((b) => lagged(b, Math.min(lag, steps))),
  autoregressive: (n, steps, lag, block) => blocks(n, block).map((b) => b * steps),
  full_sequence: (n) => new Array(n).fill(0),
  trapezoid: (n, steps, lag, block) => {
    const of = blocks(n, block);
    const most = of[of.length - 1];
    return of.map((b) => lagged(Math.min(b, most - b), Math.min(lag, steps)));
  },
  chunked: (n, steps, lag, block) => {
    const behind = Math.min(lag, steps);
    const whole = steps + lagged(block - 1, behind);
    return blocks(n, block).map((b, i) => b * whole + lagged(i % block, behind));
  },
  ar_step: (n, steps, lag, block) => blocks(n, block).map((b) => b * Math.trunc(Math.min(lag, steps))),
  fifo: (n) => Array.from({ length: n }, (_, i) => i),
  rolling: (n, steps, lag) => Array.from({ length: n }, (_, i) => i * sharing(steps, lag)),
  progressive: (n, steps, lag, block) => blocks(n, block).map((b) => b * sharing(steps, lag)),
};

function blocks(n, block) {
  return Array.from({ length: n }, (_, i) => Math.floor(i / block));
}

function lagged(count, lag) {
  return Math.floor(count * lag + 1e-9);
}

/** The least number of steps, lag or more, that shares steps into whole shifts. */
function sharing(steps, lag) {
  let shift = Math.max(1, Math.ceil(Math.min(lag, steps)));
  while (steps % shift) shift++;
  return shift;
}

/** In-betweening: each gap between known frames is filled from its known neighbours inward. Gives the offsets of all frames. */
export function between(known, steps, lag, block, window = 0) {
  const offsets = new Array(known.length).fill(0);
  let start = 0;
  let low = 0;
  gaps(known).forEach(([first, end], number) => {
    if (number === 0) {
      low = Math.max(0, first - 1);
    } else if (window && Math.min(end + 1, known.length) - low > window) {
      start = most(offsets) + steps;
      low = first - 1;
    }
    const left = first > 0;
    const right = end < known.length;
    const onward = SCHEDULES.pyramid(end - first, steps, lag, block);
    const own = left === right ? SCHEDULES.trapezoid(end - first, steps, lag, block) : left ? onward : onward.reverse();
    own.forEach((offset, i) => (offsets[first + i] = start + offset));
  });
  return offsets;
}

function most(values) {
  return values.reduce((a, b) => Math.max(a, b), 0);
}

/** A schedule for a clip; what drawing asks of it is what level_matrix.js's LevelMatrix has too. */
export class NoiseLevels {
  /** offsets: rows that each frame waits; known: which frames are given. Throws an Error where it is too long to draw. */
  constructor(steps, offsets, known) {
    this.steps = steps;
    this.known = known;
    this.frames = known.length;
    this.offsets = offsets;
    this.starts = offsets.filter((_, i) => !known[i]);
    const length = most(this.starts) + steps + 1;
    if (length > MOST_ROWS) throw new Error(`${length} model calls are too many to draw here; the node's picture shows them`);
    this.rows = this.movingRows(length);
    this.callsTotal = this.rows.length - 1;
  }

  /** A schedule of SCHEDULES; known: as knownFrames. */
  static named(name, frames, steps, { lag = 1, block = 1, known = 0, window = 0 } = {}) {
    const mask = knownFrames(known, frames);
    if (name === "trapezoid" && !onlyAtTheStart(mask)) {
      return new NoiseLevels(steps, between(mask, steps, lag, block, window), mask);
    }
    const own = SCHEDULES[name](mask.filter((given) => !given).length, steps, lag, block);
    let next = 0;
    return new NoiseLevels(steps, mask.map((given) => (given ? 0 : own[next++])), mask);
  }

  /** The values of m in the formula at which a frame moves, and the one after all have. */
  movingRows(length) {
    const change = new Int32Array(length);
    for (const start of this.starts) {
      change[start]++;
      change[start + this.steps]--;
    }
    const rows = [];
    for (let m = 0, moving = 0; m < length; m++) {
      moving += change[m];
      if (moving > 0) rows.push(m);
    }
    return [...rows, length - 1];
  }

  /** The level of a frame in a row, counted from 0. */
  level(row, frame) {
    return this.known[frame] ? 0 : Math.max(0, Math.min(this.steps, this.steps + this.offsets[frame] - this.rows[row]));
  }

  /** The least window: the widest stretch of frames that a row moves, known neighbours included. */
  inFlight() {
    const length = this.rows[this.callsTotal];
    const first = new Int32Array(length).fill(this.frames);
    const last = new Int32Array(length).fill(-1);
    for (let i = 0; i < this.frames; i++) {
      if (this.known[i]) continue;
      first[this.offsets[i]] = Math.min(first[this.offsets[i]], i);
      last[this.offsets[i]] = Math.max(last[this.offsets[i]], i);
    }
    const low = extremes(first, this.steps, (a, b) => a <= b);
    const high = extremes(last, this.steps, (a, b) => a >= b);
    return widest(this.rows.slice(0, -1).map((row) => [low[row], high[row]]), this.known);
  }
}

/** For each place the best of the last so many values, itself included. */
function extremes(values, count, better) {
  const best = new Int32Array(values.length);
  const queue = []; // places whose values get worse
  let head = 0;
  for (let i = 0; i < values.length; i++) {
    while (queue.length > head && better(values[i], values[queue[queue.length - 1]])) queue.pop();
    queue.push(i);
    if (queue[head] <= i - count) head++;
    best[i] = values[queue[head]];
  }
  return best;
}
