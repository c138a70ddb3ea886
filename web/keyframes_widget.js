/**
 * Keyframes: the images on a strip of frames. Dragging one writes its new frame into the text widget frames; a double-click adds a frame
 * number where an image has none, and takes one away where there are more than images.
 */

import { app } from "../../scripts/app.js";
import { ALARM, EMPTY, freshPicture, INKS, paragraph, TEXT, ticks } from "./drawing.js";
import { added, complaint, isEven, moved, readKeyframes, removed, stripLength, written } from "./keyframe_numbers.js";
import { type, valueOf } from "./live_widget.js";
import { LEFT, RIGHT, Strip } from "./strip.js";
import { imagesOf, listen, pictureAt } from "./thumbnails.js";

const NODE = "LongTakeKeyframes";
const HEIGHT = 168;
const [THUMBNAILS, SIDE, AXIS, DEEP] = [34, 60, 118, 16]; // top of the images, their longest side, top and height of the strip

/** The timeline of one node. */
class Timeline extends Strip {
  constructor(node) {
    super(node, "timeline", HEIGHT, "frames");
    listen(node);
    this.loaded = 0;
  }

  /** What is shown. */
  state() {
    const state = { images: imagesOf(this.node), held: this.held, loaded: this.loaded, refusal: "", handles: [], count: 0 };
    try {
      state.count = this.length ?? stripLength(valueOf(this.node, "frames"), valueOf(this.node, "clip_frames"));
      state.handles = readKeyframes(valueOf(this.node, "frames"), state.images?.length ?? null, state.count);
      state.warning = complaint(state.handles, state.images?.length ?? null);
    } catch (error) {
      state.refusal = error.message;
    }
    return state;
  }

  /** As on every strip; above it, the image under the pointer. */
  under(event, state) {
    const found = super.under(event, state);
    if (event.offsetY >= AXIS - 8) return found;
    const lefts = this.boxes(state.handles, state.count);
    return { ...found, which: lefts.findIndex((left) => left <= event.offsetX && event.offsetX <= left + SIDE) };
  }

  move(state, frame) {
    this.write(moved(state.handles, this.held, frame - this.grip, state.count), state);
  }

  toggle(state, frame, which) {
    if (isEven(valueOf(this.node, "frames"))) return;
    const images = state.images?.length ?? null;
    const keyframes = which < 0 ? added(state.handles, frame, images) : removed(state.handles, which, images);
    if (keyframes) this.write(keyframes, state);
  }

  write(keyframes, { count }) {
    const text = written(keyframes, count);
    if (text !== written(this.state().handles, count)) type(this.node, "frames", text);
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

  draw({ images, handles: keyframes, count, refusal, warning }) {
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
    if (!picture) ctx.fillText(number + 1, left + SIDE / 2, THUMBNAILS + SIDE / 2);
  }
}

app.registerExtension({
  name: "LongTake.Keyframes",
  nodeCreated(node) {
    if (node.comfyClass === NODE) new Timeline(node);
  },
});
