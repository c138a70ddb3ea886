/** Schedules that are written out row by row, and the plan that the widgets of Noise Levels ask for. As modules/sampling/level_matrix.py. */

import { knownFrames, numbersOf, widest, wordsOf } from "./known_frames.js";
import { NoiseLevels, SCHEDULES } from "./schedules.js";

const LARGEST = 100_000;
const MOST_LEVELS = 4_000_000; // what a browser counts through while someone drags a number
const LINES = /\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/;

/** AR-Diffusion for text: the level of a frame in a row, both from 0; rows are frames + steps + 1. */
export function arDiffusion(frames, steps, row, frame) {
  const t = frames + steps - row;
  const movingPlace = clamp(frames - t, 0, frames);
  const movingLevel = clamp(t - frames, 0, steps);
  const slope = (steps - movingLevel) / (2 * frames - movingPlace);
  return clamp(slope * (frame + 1 - movingPlace) + movingLevel, 0, steps);
}

function clamp(value, low, high) {
  return Math.max(low, Math.min(high, value));
}

/** A schedule for a clip, written out: level(row, frame) of so many rows. */
export class LevelMatrix {
  constructor(rows, steps, known, level) {
    Object.assign(this, { steps, known, level, frames: known.length, callsTotal: rows - 1 });
  }

  /** The least window: the widest stretch of frames that have begun and are not finished. Throws an Error where that takes too long. */
  inFlight() {
    if (this.callsTotal * this.frames > MOST_LEVELS) {
      throw new Error(`${this.callsTotal} x ${this.frames} levels are too many to draw here; the node's picture shows them`);
    }
    const stretches = [];
    for (let row = 0; row < this.callsTotal; row++) {
      let first = -1;
      let last = this.frames - 1;
      for (let frame = 0; frame < this.frames; frame++) {
        const now = this.level(row, frame);
        if (now === this.level(row + 1, frame) && (now <= 0 || now >= this.steps)) continue;
        if (first < 0) first = frame;
        last = frame;
      }
      stretches.push([Math.max(0, first), last]);
    }
    return widest(stretches, this.known);
  }
}

/** A matrix as users write it. Throws an Error with the sentence that the node would say. */
export function matrixOf(text) {
  const lines = text
    .replaceAll(";", "\n")
    .split(LINES)
    .map((line) => wordsOf(line.replaceAll(",", " , ")))
    .filter((line) => line.length);
  if (!lines.length) throw new Error("the custom matrix is empty: write a row of levels per model call, such as 33 23 12 01 00");
  const single = lines.length === 1 && !lines[0].includes(",") ? lines[0].map((word) => [word]) : lines;
  const digits = single.every((line) => line.length === 1 && /^\d+$/.test(line[0]));
  const rows = single.map((line) => (digits ? [...line[0]] : line.filter((word) => word !== ",")));
  rows.forEach((words, row) => {
    if (words.length !== rows[0].length) {
      throw new Error(`row ${row} of the custom matrix has ${words.length} levels and row 0 has ${rows[0].length}: one per frame`);
    }
  });
  const real = rows.some((words) => words.some((word) => word.includes(".")));
  const values = rows.map((words, row) => words.map((word, frame) => number(word, row, frame, real)));
  const steps = values[0].reduce((a, b) => Math.max(a, b), -Infinity);
  if (!Number.isInteger(steps)) {
    throw new Error(`row 0 has frame ${values[0].indexOf(steps)} at level ${short(steps)}: the level of noise is a whole number`);
  }
  check(values, steps, real);
  const known = values[0].map((_, frame) => values.every((row) => row[frame] === 0));
  return new LevelMatrix(values.length, steps, known, (row, frame) => values[row][frame]);
}

function number(word, row, frame, real) {
  const form = real ? /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$|^[+-]?(inf(inity)?|nan)$/i : /^[+-]?\d+$/;
  if (!form.test(word)) {
    throw new Error(`row ${row} has frame ${frame} at level '${word}': write numbers between spaces or commas`);
  }
  const value = Number(word);
  if (!(Math.abs(value) <= LARGEST)) {
    throw new Error(`row ${row} has frame ${frame} at level ${word}: levels lie between 0 (clean) and the steps that a frame takes`);
  }
  return value;
}

/** Python's f"{value:g}" for the numbers that may stand here. */
function short(value) {
  return String(Number(value.toPrecision(6)));
}

function check(values, steps, real) {
  const last = values.length - 1;
  if (last < 1 || !values[0].length) {
    throw new Error(
      `a matrix of levels has rows and frames, and at least 2 rows: this one's shape is [${values.length}, ${values[0].length}]`,
    );
  }
  if (steps < 1) throw new Error(`steps is ${steps}: every frame takes at least 1 step from noise to clean`);
  refuse(values, (now) => !(now >= 0 && now <= steps), `levels lie between 0 (clean) and ${steps} (noise)`);
  refuse(values, (now, row) => row === 0 && now !== steps && now !== 0, `in row 0 every frame is noise, ${steps}, or known, 0`);
  refuseStep(values, (now, then) => then > now, "levels never rise", "up ");
  if (!real) {
    const advice = "whole levels fall by 1 at a time; for larger steps write levels with a point, such as 3.0";
    refuseStep(values, (now, then) => now - then > 1, advice, "");
  }
  for (let row = 0; row < last; row++) {
    if (values[row].every((now, frame) => now === values[row + 1][frame])) {
      const stays = short(values[row][0]);
      throw new Error(`row ${row + 1} moves no frame (frame 0 stays at ${stays}): leave it out, it costs a model call`);
    }
  }
  refuse(values, (now, row) => row === last && now !== 0, "in the last row every frame is clean, 0");
}

function refuse(values, wrong, rule) {
  values.forEach((levels, row) => {
    const frame = levels.findIndex((now) => wrong(now, row));
    if (frame >= 0) throw new Error(`row ${row} has frame ${frame} at level ${short(levels[frame])}: ${rule}`);
  });
}

function refuseStep(values, wrong, rule, up) {
  for (let row = 0; row + 1 < values.length; row++) {
    const frame = values[row].findIndex((now, place) => wrong(now, values[row + 1][place]));
    if (frame < 0) continue;
    const [now, then] = [short(values[row][frame]), short(values[row + 1][frame])];
    throw new Error(`row ${row + 1} takes frame ${frame} ${up}from ${now} to ${then}: ${rule}`);
  }
}

/** The schedule that the widgets of Noise Levels ask for. Throws an Error with the sentence that the node would say. */
export function planned({ frames, schedule, steps, lag, block, known, known_at: knownAt, custom, window }) {
  const numbers = numbersOf(knownAt);
  if (schedule === "custom") return customOf(custom, numbers.length ? numbers : known);
  const start = Array.from({ length: Math.min(known, frames) }, (_, i) => i);
  const given = numbers.length ? [...start, ...numbers] : known;
  if (schedule in SCHEDULES) return NoiseLevels.named(schedule, frames, steps, { lag, block, known: given, window });
  const mask = knownFrames(given, frames);
  let made = 0;
  const place = mask.map((isKnown) => (isKnown ? -1 : made++));
  const level = (row, frame) => (mask[frame] ? 0 : arDiffusion(made, steps, row, place[frame]));
  return new LevelMatrix(made + steps + 1, steps, mask, level);
}

function customOf(text, known) {
  const matrix = matrixOf(text);
  if (typeof known === "number" ? known > 0 : known.length) {
    const mask = knownFrames(known, matrix.frames);
    if (mask.some((given, frame) => given !== matrix.known[frame])) {
      const zeros = matrix.known.flatMap((given, frame) => (given ? [frame] : [])).join(", ") || "none";
      throw new Error(
        `the frames that are 0 in every row of the custom matrix (${zeros}) are the known ones, and others are said to be: leave known` +
          " at 0 and known_at empty",
      );
    }
  }
  return matrix;
}

/** What the node says of its cost, in short, and its refusal of a window that is too short, or "". */
export function costOf(levels, window) {
  const made = levels.known.filter((given) => !given).length;
  const least = levels.inFlight();
  const each = Number((levels.callsTotal / made).toPrecision(3));
  const refusal =
    window && window < least
      ? `the window holds ${window} frames and this schedule has ${least} in flight at once: use a window of at least ${least}, fewer` +
        " steps, a smaller block or a larger lag"
      : "";
  return { calls: levels.callsTotal, made, least, each, refusal };
}
