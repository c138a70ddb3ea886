/** Frames of a clip that are given: how they are named, and the gaps that they leave. As modules/sampling/known_frames.py, sentences included. */

/** Python's text.split(): words between white space. */
export function wordsOf(text) {
  return text.split(/\s+/).filter((word) => word !== "");
}

/** Frame numbers as users write them: "0, 8 -1" is [0, 8, -1]. Throws an Error when something else is among them. */
export function numbersOf(text) {
  const words = wordsOf(text.replaceAll(",", " "));
  for (const word of words) {
    if (!/^[+-]?\d+$/.test(word)) {
      throw new Error(`'${word}' is no frame number: write whole numbers such as 0, 16, -1 (the last frame)`);
    }
  }
  return words.map(Number);
}

/**
 * Which frames of a clip are given, as an array of booleans.
 *
 * known: how many at the start, or their numbers; negative ones count from the end. Throws an Error for a number outside the clip, and
 * when nothing is left to generate.
 */
export function knownFrames(known, frames) {
  const numbers = typeof known === "number" ? Array.from({ length: Math.min(known, frames) }, (_, i) => i) : known;
  const outside = numbers.find((i) => !(-frames <= i && i < frames));
  if (outside !== undefined) {
    throw new Error(`frame ${outside} is known and the clip has frames 0 to ${frames - 1}: choose a frame of the clip`);
  }
  const mask = new Array(frames).fill(false);
  for (const i of numbers) mask[i < 0 ? i + frames : i] = true;
  if (mask.every(Boolean)) {
    throw new Error(`${frames} frames are known and the clip has ${frames}: nothing is left to generate, ask for more frames`);
  }
  return mask;
}

/** Whether no given frame comes after one that is not. */
export function onlyAtTheStart(known) {
  return !known.some((given, i) => i > 0 && given && !known[i - 1]);
}

/** [first, end] of each stretch that is not given; end is the frame after its last. */
export function gaps(known) {
  const found = [];
  for (let i = 0; i < known.length; i++) {
    if (known[i]) continue;
    if (i === 0 || known[i - 1]) found.push([i, i]);
    found[found.length - 1][1] = i + 1;
  }
  return found;
}

/** The widest of stretches [first, last] of frames, with the given frames beside them if some are given elsewhere than at the start. */
export function widest(stretches, known) {
  const beside = onlyAtTheStart(known) ? [] : known;
  let most = 0;
  for (const [first, last] of stretches) {
    most = Math.max(most, last - first + 1 + (beside[first - 1] ? 1 : 0) + (beside[last + 1] ? 1 : 0));
  }
  return most;
}
