/** Known Frames: its text known_at, told before anything has run, so that Noise Levels follows while a keyframe is dragged. */

import { complaint, readKeyframes } from "./keyframe_numbers.js";
import { isConnected, sourceOf, TEXTS, valueOf } from "./live_widget.js";
import { imagesOf } from "./thumbnails.js";

/** The frames, counted from the start, of all keyframes that a node's input brings. Throws an Error where they are not known yet. */
function framesOf(node, input, count) {
  const source = sourceOf(node, input);
  if (source?.type !== "LongTakeKeyframes") throw new Error("the keyframes are known when the workflow has run");
  const clip = valueOf(source, "clip_frames");
  if (clip && clip !== count) {
    throw new Error(
      `the keyframes were laid out for a clip of ${clip} frames and this one has ${count}: set clip_frames of Keyframes to ${count}, or` +
        " to 0 for any length",
    );
  }
  const images = imagesOf(source)?.length ?? null;
  const keyframes = readKeyframes(valueOf(source, "frames"), images, count);
  const wrong = complaint(keyframes, images);
  if (wrong) throw new Error(wrong);
  const before = isConnected(source, "previous") ? framesOf(source, "previous", count) : [];
  return [...before, ...keyframes.map(({ at }) => at)];
}

TEXTS.LongTakeKnownFrames = (node) => framesOf(node, "keyframes", valueOf(node, "frames")).sort((a, b) => a - b).join(", ");
