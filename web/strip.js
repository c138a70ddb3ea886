/**
 * What the strips of frames under Keyframes and under the schedules share: a handle on a frame is taken, dragged and let go, and a
 * double-click adds one or takes one away. A strip draws itself, and says what its handles are.
 */

import { addCanvas, isConnected } from "./live_widget.js";

export const LEFT = 16; // margins of the strip, in pixels
export const RIGHT = 16;
const REACH = 9; // pixels from a handle's centre that still take hold of it

/**
 * A strip of frames. Who extends it has `state()` with `handles` ({at: frame, ...}), `count` and `refusal`, `draw(state)`,
 * `move(state, frame)` and `toggle(state, frame, which)`.
 */
export class Strip {
  /** `source`: the widget that is written; while it is connected, nothing can be dragged. */
  constructor(node, name, height, source) {
    this.node = node;
    this.source = source;
    this.held = null; // number of the handle that is dragged
    this.grip = 0; // frames from the held handle to where it was taken
    this.length = null; // of the strip, kept while dragging
    this.canvas = addCanvas(node, name, height, () => this.state(), (_, state) => this.draw(state));
    this.canvas.addEventListener("pointerdown", (event) => this.take(event));
    this.canvas.addEventListener("pointermove", (event) => this.drag(event));
    for (const end of ["pointerup", "pointercancel"]) this.canvas.addEventListener(end, (event) => this.drop(event));
    this.canvas.addEventListener("dblclick", (event) => this.addOrRemove(event));
  }

  /** The middle of a frame, in pixels. */
  middle(frame, count) {
    return LEFT + ((frame + 0.5) * (this.canvas.clientWidth - LEFT - RIGHT)) / count;
  }

  /** The frame and the handle, or -1, under the pointer. */
  under(event, { handles, count }) {
    const scale = this.canvas.getBoundingClientRect().width / this.canvas.clientWidth; // the editor's zoom
    const frame = Math.floor(((event.offsetX - LEFT) * count) / (this.canvas.clientWidth - LEFT - RIGHT));
    const distances = handles.map(({ at }) => Math.abs(this.middle(at, count) - event.offsetX));
    const reach = Math.max(REACH / Math.min(1, scale), (this.middle(1, count) - this.middle(0, count)) / 2);
    const nearest = distances.indexOf(Math.min(...distances));
    return { frame: Math.max(0, Math.min(count - 1, frame)), which: distances[nearest] <= reach ? nearest : -1 };
  }

  /** Whether what is shown can be changed here. */
  fixed(state) {
    return Boolean(state.refusal) || isConnected(this.node, this.source);
  }

  take(event) {
    if (event.button !== 0) return; // the others are the editor's
    event.stopPropagation();
    const state = this.state();
    if (this.fixed(state)) return;
    const { frame, which } = this.under(event, state);
    if (which < 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.held = which;
    this.grip = frame - state.handles[which].at;
    this.length = state.count;
  }

  drag(event) {
    const state = this.state();
    if (this.held === null) {
      this.canvas.style.cursor = this.fixed(state) || this.under(event, state).which < 0 ? "default" : "grab";
      return;
    }
    event.stopPropagation();
    this.canvas.style.cursor = "grabbing";
    if (!state.refusal) this.move(state, this.under(event, state).frame);
  }

  drop(event) {
    if (this.held === null) return;
    event.stopPropagation();
    this.held = this.length = null;
    this.canvas.style.cursor = "default";
  }

  addOrRemove(event) {
    event.stopPropagation();
    const state = this.state();
    if (this.fixed(state)) return;
    const { frame, which } = this.under(event, state);
    this.toggle(state, frame, which);
  }
}
