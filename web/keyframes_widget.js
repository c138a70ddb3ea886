/**
 * Keyframes: the images on a strip of frames. Dragging one writes its new frame into the text widget frames; a double-click adds a frame
 * number where an image has none, and takes one away where there are more than images.
 */

import { app } from "../../scripts/app.js";
import { ALARM, EMPTY, freshPicture, INKS, paragraph, TEXT, ticks } from "./drawing.js";
import { added, complaint, isEven, moved, readKeyframes, removed, stripLength, written } from "./keyframe_numbers.js";
import { addCanvas, isConnected, type, valueOf } from "./live_widget.js";
import { imagesOf, listen, pictureAt } from "./thumbnails.js";

const NODE = "LongTakeKeyframes";
const HEIGHT = 168;
const [LEFT, RIGHT] = [16, 16];
const [THUMBNAILS, SIDE, AXIS, DEEP] = [34, 60, 118, 16]; // top of the images, their longest side, top and height of the strip
const REACH = 9; // pixels from a handle's centre that still take hold of it

/** The timeline of one node. */
class Timeline {
  constructor(node) {
    this.node = node;
    listen(node);
    this.held = null; // number of the keyframe that is dragged
    this.loaded = 0;
    this.length = null; // of the strip, kept while dragging
    this.canvas = addCanvas(node, "timeline", HEIGHT, () => this.state(), (_, state) => this.draw(state));
    this.canvas.addEventListener("pointerdown", (event) => this.take(event));
    this.canvas.addEventListener("pointermove", (event) => this.drag(event));
    for (const end of ["pointerup", "pointercancel"]) this.canvas.addEventListener(end, (event) => this.drop(event));
    this.canvas.addEventListener("dblclick", (event) => this.addOrRemove(event));
  }

  /** What is shown. */
  state() {
    const state = { images: imagesOf(this.node), held: this.held, loaded: this.loaded, refusal: "", keyframes: [], count: 0 };
    try {
      state.count = this.length ?? stripLength(valueOf(this.node, "frames"), valueOf(this.node, "clip_frames"));
      state.keyframes = readKeyframes(valueOf(this.node, "frames"), state.images?.length ?? null, state.count);
      state.warning = complaint(state.keyframes, state.images?.length ?? null);
    } catch (error) {
      state.refusal = error.message;
    }
    return state;
  }

  /** The middle of a frame, in pixels. */
  middle(frame, count) {
    return LEFT + ((frame + 0.5) * (this.canvas.clientWidth - LEFT - RIGHT)) / count;
  }

  /** The frame and the keyframe, or -1, under the pointer. */
  under(event, { keyframes, count }) {
    const scale = this.canvas.getBoundingClientRect().width / this.canvas.clientWidth; // the editor's zoom
    const [x, y] = [event.offsetX, event.offsetY];
    const frame = Math.floor(((x - LEFT) * count) / (this.canvas.clientWidth - LEFT - RIGHT));
    const distances = keyframes.map(({ at }) => Math.abs(this.middle(at, count) - x));
    const reach = Math.max(REACH / Math.min(1, scale), (this.middle(1, count) - this.middle(0, count)) / 2);
    let nearest = distances.indexOf(Math.min(...distances));
    if (y < AXIS - 8) nearest = this.boxes(keyframes, count).findIndex((left) => left <= x && x <= left + SIDE);
    else if (!(distances[nearest] <= reach)) nearest = -1;
    return { frame: Math.max(0, Math.min(count - 1, frame)), which: nearest };
  }

  take(event) {
    if (event.button !== 0) return; // the others are the editor's
    event.stopPropagation();
    const state = this.state();
    if (state.refusal || isConnected(this.node, "frames")) return;
    const { frame, which } = this.under(event, state);
    if (which < 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.held = which;
    this.grip = frame - state.keyframes[which].at; // a thumbnail may be taken beside its frame
    this.length = state.count;
  }

  drag(event) {
    const state = this.state();
    if (this.held === null) {
      const free = state.refusal || isConnected(this.node, "frames") || this.under(event, state).which < 0;
      this.canvas.style.cursor = free ? "default" : "grab";
      return;
    }
    event.stopPropagation();
    this.canvas.style.cursor = "grabbing";
    const { frame } = this.under(event, state);
    this.write(moved(state.keyframes, this.held, frame - this.grip, state.count), state);
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
    if (state.refusal || isConnected(this.node, "frames") || isEven(valueOf(this.node, "frames"))) return;
    const { frame, which } = this.under(event, state);
    const images = state.images?.length ?? null;
    const keyframes = which < 0 ? added(state.keyframes, frame, images) : removed(state.keyframes, which, images);
    if (keyframes) this.write(keyframes, state);
  }

  write(keyframes, { count }) {
    const text = written(keyframes, count);
    if (text !== written(this.state().keyframes, count)) type(this.node, "frames", text);
  }

  /** The left of each thumbnail: over its frame, and pushed aside where others stand. */
  boxes(keyframes, count) {
    const order = keyframes.map((_, i) => i).sort((a, b) => keyframes[a].at - keyframes[b].at);
    const room = this.canvas.clientWidth;
    const apart = Math.min(SIDE + 4, room / Math.max(1, keyframes.length));
    const lefts = [];
    let free = 0;
    for (const i of order) free = (lefts[i] = Math.max(free, this.middle(keyframes[i].at, count) - SIDE / 2)) + apart;
    let end = room - SIDE;
    for (const i of order.reverse()) end = (lefts[i] = Math.max(0, Math.min(end, lefts[i]))) - apart;
    return lefts;
  }

  draw({ images, keyframes, count, refusal, warning }) {
    const { ctx, width } = freshPicture(this.canvas);
    if (refusal) {
      paragraph(ctx, refusal, 8, 8, width - 16, ALARM);
      return;
    }
    const about = `${keyframes.length} ${keyframes.length === 1 ? "keyframe" : "keyframes"} in ${count} frames`;
    paragraph(ctx, warning || about, 8, 4, width - 16, warning ? ALARM : TEXT);
    ctx.fillStyle = EMPTY;
    ctx.fillRect(LEFT, AXIS, width - LEFT - RIGHT, DEEP);
    ctx.fillStyle = TEXT;
    ctx.textAlign = "center";
    const places = keyframes.map(({ at }) => this.middle(at, count));
    for (const frame of ticks(count, width - LEFT - RIGHT)) {
      const x = this.middle(frame, count);
      if (places.every((place) => Math.abs(place - x) > 18)) ctx.fillText(frame, x, AXIS + DEEP + 12);
    }
    const lefts = this.boxes(keyframes, count);
    keyframes.forEach((keyframe, i) => this.keyframe(ctx, i, written([keyframe], count), places[i], lefts[i], images?.[i]));
  }

  keyframe(ctx, number, name, x, left, url) {
    const ink = INKS[number % INKS.length];
    const picture = url ? pictureAt(url, () => this.loaded++) : null;
    const scale = picture ? SIDE / Math.max(picture.naturalWidth, picture.naturalHeight) : 1;
    const [wide, tall] = picture ? [picture.naturalWidth * scale, picture.naturalHeight * scale] : [SIDE, SIDE];
    const [x0, y0] = [left + (SIDE - wide) / 2, THUMBNAILS + SIDE - tall];
    ctx.strokeStyle = ctx.fillStyle = ink;
    ctx.lineWidth = number === this.held ? 3 : 1.5;
    ctx.beginPath();
    ctx.moveTo(left + SIDE / 2, THUMBNAILS + SIDE);
    ctx.lineTo(x, AXIS);
    ctx.lineTo(x, AXIS + DEEP);
    ctx.stroke();
    ctx.beginPath();
    ctx.arc(x, AXIS + DEEP / 2, 6, 0, 2 * Math.PI);
    ctx.fill();
    ctx.textAlign = "center";
    ctx.fillText(name, x, AXIS + DEEP + 12);
    ctx.fillStyle = EMPTY;
    ctx.fillRect(x0, y0, wide, tall);
    ctx.imageSmoothingEnabled = scale < 1;
    if (picture) ctx.drawImage(picture, x0, y0, wide, tall);
    ctx.strokeRect(x0, y0, wide, tall);
    ctx.fillStyle = TEXT;
    if (!picture) ctx.fillText(`image ${number + 1}`, left + SIDE / 2, THUMBNAILS + SIDE / 2);
  }
}

app.registerExtension({
  name: "LongTake.Keyframes",
  nodeCreated(node) {
    if (node.comfyClass === NODE) new Timeline(node);
  },
});
