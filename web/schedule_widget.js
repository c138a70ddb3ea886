/**
 * Prompt Schedule and Value Schedule: the keys on a strip of frames. Dragging one writes its new time into the text; a double-click adds a key,
 * or takes one away. The text stays the one place where a schedule is.
 */

import { app } from "../../scripts/app.js";
import { ALARM, EMPTY, freshPicture, INKS, paragraph, TEXT, ticks } from "./drawing.js";
import { isConnected, type, valueOf, widgetOf } from "./live_widget.js";
import { added, changeAt, moved, readKeys, removed, stripLength } from "./schedule_text.js";
import { LEFT, RIGHT, Strip } from "./strip.js";

const NUMBERS = { LongTakePromptSchedule: false, LongTakeValueSchedule: true };
const HEIGHT = 118;
const [AXIS, DEEP] = [50, 36]; // top and height of the strip

/** A colour between two of the palette. */
function mixed(one, other, late) {
  const [from, to] = [one, other].map((ink) => [1, 3, 5].map((i) => parseInt(ink.slice(i, i + 2), 16)));
  return `rgb(${from.map((channel, i) => Math.round(channel + (to[i] - channel) * late)).join()})`;
}

/** The keys of one node. */
class Keys extends Strip {
  constructor(node) {
    super(node, "strip", HEIGHT, "schedule");
    this.numbers = NUMBERS[node.comfyClass];
  }

  /** How the text is read. A length that comes from another node is not known here. */
  options() {
    const known = (name, otherwise) => (isConnected(this.node, name) ? otherwise : widgetOf(this.node, name)?.value ?? otherwise);
    return {
      numbers: this.numbers,
      count: known("frames", 0),
      fps: known("fps", 8),
      interpolation: known("interpolation", "linear"),
    };
  }

  /** What is shown. */
  state() {
    const state = { text: "", held: this.held, refusal: "", handles: [], count: 0, options: this.options() };
    try {
      state.text = valueOf(this.node, "schedule") ?? "";
      state.handles = readKeys(state.text, state.options);
      state.count = this.length ?? stripLength(state.text, this.numbers, state.options.count, state.options.fps);
    } catch (error) {
      state.refusal = error.message;
    }
    return state;
  }

  move(state, frame) {
    const entry = state.handles[this.held].entry;
    const second = state.handles[this.held - 1]?.entry === entry;
    this.write(moved(state.text, this.held, frame, state.options), state.text);
    // keys are in order of time, so one that has passed another has another number
    this.held = this.state().handles.findIndex((key) => key.entry === entry) + (second ? 1 : 0);
  }

  toggle({ text, options }, frame, which) {
    this.write(which < 0 ? added(text, frame, options) : removed(text, which, options), text);
  }

  write(text, before) {
    if (text !== before) type(this.node, "schedule", text);
  }

  draw({ handles: keys, count, refusal, options }) {
    const { ctx, width } = freshPicture(this.canvas);
    if (refusal) {
      paragraph(ctx, refusal, 8, 8, width - 16, ALARM);
      return;
    }
    const values = this.numbers ? keys.map((key) => Number(key.text)) : [];
    const drawn = values.every(Number.isFinite);
    const unit = options.count ? `in ${count} frames` : "and room to drag";
    const about = drawn ? "" : "; terms are worked out when queued";
    paragraph(ctx, `${keys.length} ${keys.length === 1 ? "key" : "keys"} ${unit}${about}`, 8, 4, width - 16);
    ctx.fillStyle = EMPTY;
    ctx.fillRect(LEFT, AXIS, width - LEFT - RIGHT, DEEP);
    if (!this.numbers) this.colours(ctx, keys, count);
    else if (drawn) this.curve(ctx, keys, values, count);
    ctx.fillStyle = TEXT;
    ctx.textAlign = "center";
    const places = keys.map(({ at }) => this.middle(at, count));
    for (const frame of ticks(count, width - LEFT - RIGHT)) {
      const x = this.middle(frame, count);
      if (places.every((place) => Math.abs(place - x) > 18)) ctx.fillText(frame, x, AXIS + DEEP + 12);
    }
    keys.forEach((key, i) => this.key(ctx, key, i, places, width));
  }

  /** The prompts' shares, as mixtures of their colours. */
  colours(ctx, keys, count) {
    const step = this.middle(1, count) - this.middle(0, count);
    for (let frame = 0; frame < count; frame++) {
      const { before, after, late } = changeAt(keys, frame);
      ctx.fillStyle = mixed(this.ink(keys[before]), this.ink(keys[after]), late);
      ctx.fillRect(this.middle(frame, count) - step / 2, AXIS, step + 0.5, DEEP);
    }
  }

  /** The numbers, as a line. */
  curve(ctx, keys, values, count) {
    const [low, high] = [Math.min(0, ...values), Math.max(...values)];
    ctx.strokeStyle = INKS[0];
    ctx.lineWidth = 1.5;
    ctx.beginPath();
    for (let frame = 0; frame < count; frame++) {
      const { before, after, late } = changeAt(keys, frame);
      const value = values[before] + (values[after] - values[before]) * late;
      ctx.lineTo(this.middle(frame, count), AXIS + DEEP - 3 - ((value - low) / (high - low || 1)) * (DEEP - 6));
    }
    ctx.stroke();
  }

  ink({ entry }) {
    return INKS[entry % INKS.length];
  }

  key(ctx, key, number, places, width) {
    const x = places[number];
    ctx.strokeStyle = TEXT;
    ctx.fillStyle = this.ink(key);
    ctx.lineWidth = number === this.held ? 3 : 1.5;
    ctx.beginPath();
    ctx.moveTo(x, AXIS - 4);
    ctx.lineTo(x, AXIS + DEEP);
    ctx.stroke();
    ctx.beginPath();
    ctx.arc(x, AXIS + DEEP / 2, 6, 0, 2 * Math.PI);
    ctx.fill();
    ctx.stroke();
    ctx.textAlign = "center";
    ctx.fillText(Number(key.at.toFixed(2)), x, AXIS + DEEP + 12);
    const room = (places[number + 1] ?? width - RIGHT) - x - 4;
    let said = key.text;
    while (said && ctx.measureText(`${said}...`).width > room) said = said.slice(0, -1);
    ctx.textAlign = "left";
    if (said) ctx.fillText(said === key.text ? said : `${said}...`, x, AXIS - 12);
  }
}

app.registerExtension({
  name: "LongTake.Schedules",
  nodeCreated(node) {
    if (node.comfyClass in NUMBERS) new Keys(node);
  },
});
