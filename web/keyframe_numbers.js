/**
 * The text of Keyframes' frames as a list of keyframes that can be dragged. Numbers are read as modules/control/keyframes.py reads them.
 *
 * A keyframe is {at, fromEnd}: its frame counted from the start of the clip, and whether it is written as counted from the end.
 */

import { numbersOf } from "./known_frames.js";

const ROOM = 8; // frames to drag into beyond the last keyframe, where the length of the clip is not known

/** Whether the text asks for an even spread. */
export function isEven(text) {
  return text.trim().toLowerCase() === "even";
}

/** Python's round: halves go to the even number. */
function rounded(value) {
  const low = Math.floor(value);
  if (value - low !== 0.5) return Math.round(value);
  return low % 2 ? low + 1 : low;
}

/** The frames of so many images spread over a clip, first and last included. */
export function spread(images, count) {
  if (count < images) {
    const room = count ? `the clip has ${count} frames` : "clip_frames is 0, so its length is not known";
    throw new Error(`${images} images cannot be spread evenly over the clip: ${room}; say how long it is`);
  }
  const step = images > 1 ? (count - 1) / (images - 1) : 0;
  const half = Math.floor(images / 2);
  return Array.from({ length: images }, (_, i) => rounded(i < half || images === 1 ? step * i : count - 1 - step * (images - 1 - i)));
}

/** How long the strip is: the clip, or where that is not known what the keyframes need, with room to drag. */
export function stripLength(text, clip) {
  if (clip || isEven(text)) return clip;
  return numbersOf(text).reduce((most, n) => Math.max(most, n < 0 ? -n : n + 1), 1) + ROOM;
}

/**
 * The keyframes of a text. images: how many are connected, or null where that is not known. count: length of the strip.
 *
 * Throws an Error with the sentence that the node would say, except for the number of images, which complaint tells.
 */
export function readKeyframes(text, images, count) {
  if (isEven(text)) {
    if (images === null) throw new Error("how many images are connected is known when the node has run: even is drawn then");
    return spread(images, count).map((at) => ({ at, fromEnd: false }));
  }
  const numbers = numbersOf(text);
  const outside = numbers.find((n) => !(-count <= n && n < count));
  if (outside !== undefined) {
    throw new Error(
      `a keyframe is at frame ${outside} and the clip has ${count} frames: choose 0 to ${count - 1}, or -1 to -${count}` +
        " counted from the end",
    );
  }
  return numbers.map((n) => ({ at: n < 0 ? n + count : n, fromEnd: n < 0 }));
}

/** What the node would refuse in these keyframes, or "". */
export function complaint(keyframes, images) {
  const taken = new Set();
  for (const { at } of keyframes) {
    if (taken.has(at)) return `two images are keyframes of frame ${at}: give each its own frame`;
    taken.add(at);
  }
  if (images !== null && keyframes.length !== images) {
    return `${images} ${images === 1 ? "image" : "images"} and ${keyframes.length} frame numbers: one for each image`;
  }
  return "";
}

/** The text of keyframes, in the order of their images. */
export function written(keyframes, count) {
  return keyframes.map(({ at, fromEnd }) => (fromEnd ? at - count : at)).join(", ");
}

/** One keyframe dragged to a frame; the nearest one on its way that no other has. */
export function moved(keyframes, which, to, count) {
  const others = new Set(keyframes.filter((_, i) => i !== which).map(({ at }) => at));
  const from = keyframes[which].at;
  let at = Math.max(0, Math.min(count - 1, to));
  const back = Math.sign(from - at);
  while (at !== from && others.has(at)) at += back;
  return keyframes.map((keyframe, i) => (i === which ? { ...keyframe, at } : keyframe));
}

/** One more keyframe at a frame, after the others; null where every image has its frame already or the frame is taken. */
export function added(keyframes, at, images) {
  if (images !== null && keyframes.length >= images) return null;
  if (keyframes.some((keyframe) => keyframe.at === at)) return null;
  return [...keyframes, { at, fromEnd: false }];
}

/** All but one keyframe; null where each has its image, or it is the last one. */
export function removed(keyframes, which, images) {
  if (keyframes.length < 2 || (images !== null && keyframes.length <= images)) return null;
  return keyframes.filter((_, i) => i !== which);
}
