/**
 * The text of a schedule as entries with times that can be dragged, read as modules/control/schedule_text.py reads it.
 *
 * An entry is {time, text, how, until, start, end, timeAt, untilAt}: what stands where in the text, as [from, to]; start and end are the whole
 * entry's, and timeAt is null in a text without times.
 */

export const HOWS = ["hold", "linear", "smooth"];
const NUMBER = String.raw`-?(?:\d+(?:\.\d*)?|\.\d+)`;
const TIME = String.raw`(?:${NUMBER}\s*[s%]?|max_f(?:\s*[-+*/]\s*\d+(?:\.\d+)?)*)`;
const HOW = String.raw`(?:\s+(?<how>${HOWS.join("|")}))?`;
const BARE = new RegExp(String.raw`(?<time>${TIME})${HOW}\s*(?:(?<range>:\s*(?:${NUMBER})?)\s*=|[:=])`, "yd");
const QUOTED = new RegExp(String.raw`"\s*(?<time>${TIME})${HOW}\s*(?<range>:\s*(?:${NUMBER})?)?\s*"\s*[:=]`, "yd");
const CLOSED = /"((?:[^"\\]|\\[^])*)"/y;
const REST = /[ \t]*(?=[,;\n]|$)/y;
const ROOM = 8; // frames to drag into behind the last key, where the length of the clip is not known

function at(pattern, text, position) {
  pattern.lastIndex = position;
  return pattern.exec(text);
}

function keyAt(text, position) {
  return at(QUOTED, text, position) ?? at(BARE, text, position);
}

function next(text, position) {
  return at(/[\s,;]*/y, text, position).index + at(/[\s,;]*/y, text, position)[0].length;
}

function placeOf(text, position) {
  const before = text.slice(0, position);
  return `line ${before.split("\n").length}, column ${position - before.lastIndexOf("\n")}`;
}

function plain(quoted) {
  return quoted.replace(/\\(["\\/n])/g, (_, letter) => (letter === "n" ? "\n" : letter)).trim();
}

function valueFrom(text, from, numbers) {
  let position = from;
  const ahead = from + text.slice(from).length - text.slice(from).trimStart().length;
  if (text[ahead] === '"' && !keyAt(text, ahead)) {
    position = ahead;
    const found = at(CLOSED, text, position);
    if (!found) throw new Error(`${placeOf(text, position)}: the quotation mark is not closed: write " at the end of the prompt`);
    position += found[0].length;
    if (!at(REST, text, position)) throw new Error(`${placeOf(text, position)}: something stands behind a closed quotation mark`);
    return { text: plain(found[1]), end: position };
  }
  let stop = position;
  let depth = 0;
  for (; stop < text.length; stop++) {
    const letter = text[stop];
    if (numbers) depth += ("([".includes(letter) ? 1 : 0) - (")]".includes(letter) ? 1 : 0);
    if (letter === ";" || (numbers && letter === "," && depth <= 0)) break;
    if (letter === "\n" && (numbers || keyAt(text, next(text, stop)))) break;
  }
  const value = text.slice(position, stop).trim();
  const end = value ? text.slice(0, stop).trimEnd().length : from;
  return { text: value.includes("\n") ? value.split(/\s+/).join(" ") : value, end };
}

/** The entries of a schedule. Throws an Error with line and column. */
export function readEntries(given, numbers = false) {
  const start = given.length - given.trimStart().length;
  const body = given.trim();
  const braces = body.startsWith("{") && body.endsWith("}") && body.length > 1 ? 1 : 0;
  const text = given.slice(0, start + body.length - braces);
  let position = next(text, start + braces);
  const breaks = [...text.matchAll(numbers ? /[\n;,]/g : /[\n;]/g)].map(({ index }) => index).filter((index) => index >= position);
  if (!keyAt(text, position) && !breaks.some((index) => keyAt(text, next(text, index)))) {
    const whole = text.slice(start + braces).trim();
    const quoted = at(CLOSED, whole, 0);
    const said = quoted && quoted[0].length === whole.length ? plain(quoted[1]) : whole;
    return [{ time: "0", text: said, how: "", until: "", start: position, end: text.length, timeAt: null, untilAt: null }];
  }
  const entries = [];
  while (position < text.length) {
    const key = keyAt(text, position);
    if (!key) throw new Error(`${placeOf(text, position)}: an entry has no time before it: write 0: a forest; 24: the same in snow`);
    const value = valueFrom(text, position + key[0].length, numbers);
    const { time, how, range } = key.groups;
    const until = (range ?? "").replace(/^[:\s]+/, "");
    const untilAt = until ? [key.indices.groups.range[1] - until.length, key.indices.groups.range[1]] : null;
    const timeAt = [key.indices.groups.time[0], key.indices.groups.time[0] + time.trim().length];
    entries.push({
      ...{ time: time.trim(), text: value.text, how: how ?? (range !== undefined && !until ? "hold" : ""), until },
      ...{ start: position, end: value.end, timeAt, untilAt },
    });
    position = next(text, value.end);
  }
  return entries;
}

/** max_f with what stands behind it, where max_f is count. */
function worked(time, count) {
  const terms = time.replaceAll("max_f", count).match(/[\d.]+|[-+*/]/g);
  let [sum, product, sign] = [0, Number(terms[0]), 1];
  for (let i = 1; i < terms.length; i += 2) {
    const number = Number(terms[i + 1]);
    if (terms[i] === "*") product *= number;
    else if (terms[i] === "/") product /= number;
    else [sum, product, sign] = [sum + sign * product, number, terms[i] === "+" ? 1 : -1];
  }
  return Math.floor(sum + sign * product);
}

/** The frame of a time in a clip of count frames, 0 where that is not known. Throws an Error where it cannot be told. */
export function frameOf(time, count, fps) {
  const known = () => {
    if (!count) throw new Error(`the time ${time} needs the clip's length, which is not known: set frames`);
    return count;
  };
  let frame;
  if (time.endsWith("s")) frame = parseFloat(time) * fps;
  else if (time.startsWith("max_f")) frame = worked(time, known());
  else if (time.endsWith("%") || time.includes(".")) {
    const share = parseFloat(time) / (time.endsWith("%") ? 100 : 1);
    if (!(share >= 0 && share <= 1)) throw new Error(`${time} is a share of the clip: write frames as whole numbers, or seconds with an s`);
    frame = Math.min(Math.floor(share * known()), count - 1);
  } else {
    frame = parseInt(time);
    if (frame < 0) frame += known();
  }
  if (frame < 0) throw new Error(`the time ${time} lies before the clip's first frame: choose 0 or more`);
  return frame;
}

/** The keys of a schedule, in order of time: {at, text, how, entry}, where entry is the number of the entry that a drag changes. */
export function readKeys(text, { numbers = false, count = 0, fps = 8, interpolation = "linear" } = {}) {
  const keys = [];
  readEntries(text, numbers).forEach((entry, number) => {
    const start = frameOf(entry.time, count, fps);
    const end = entry.until ? frameOf(entry.until, count, fps) : start + 1;
    if (end <= start) throw new Error(`the range ${entry.time}:${entry.until} ends before it begins`);
    const long = end - 1 > start;
    keys.push({ at: start, text: entry.text, how: long ? "hold" : entry.how || interpolation, entry: number });
    if (long && entry.until) keys.push({ at: end - 1, text: entry.text, how: interpolation, entry: number });
  });
  keys.sort((one, other) => one.at - other.at);
  for (let i = 1; i < keys.length; i++) {
    if (keys[i].at === keys[i - 1].at) throw new Error(`there are two entries for frame ${keys[i].at}: give each its own time`);
  }
  return keys;
}

/** The key that holds at a frame and how far the change to the next one has come, 0 to 1: {before, after, late}. */
export function changeAt(keys, frame) {
  let before = 0;
  while (before + 1 < keys.length && keys[before + 1].at <= frame) before++;
  const after = Math.min(before + 1, keys.length - 1);
  const span = keys[after].at - keys[before].at;
  const part = span > 0 ? Math.max(0, Math.min(1, (frame - keys[before].at) / span)) : 0;
  const late = { hold: 0, linear: part, smooth: part * part * (3 - 2 * part) }[keys[before].how];
  return { before, after, late };
}

/** How long the strip is: the clip, or where that is not known what the keys need, with room to drag. */
export function stripLength(text, numbers, count, fps) {
  if (count) return count;
  return Math.floor(Math.max(...readKeys(text, { numbers, count, fps }).map((key) => key.at))) + 1 + ROOM;
}

/** A time written as one was: in seconds, from the end, or as a frame. */
function timeLike(time, frame, count, fps) {
  if (time.endsWith("s")) return `${Number((frame / fps).toFixed(3))}s`;
  return time.startsWith("-") && count ? `${frame - count}` : `${frame}`;
}

/** The text with one entry dragged so that its key is at a frame; the nearest one on its way that no other key has. */
export function moved(text, key, to, options) {
  const { numbers, count, fps } = options;
  const keys = readKeys(text, options);
  const entry = readEntries(text, numbers)[keys[key].entry];
  if (!entry.timeAt) return text;
  const mine = keys.filter((other) => other.entry === keys[key].entry).map((other) => other.at);
  const others = new Set(keys.filter((other) => other.entry !== keys[key].entry).map((other) => other.at));
  const last = (count || Infinity) - 1;
  let by = Math.max(-mine[0], Math.min(Math.max(last, mine.at(-1)) - mine.at(-1), to - keys[key].at));
  const back = -Math.sign(by);
  while (by && mine.some((at) => others.has(at + by))) by += Math.abs(by) < 1 ? -by : back;
  if (!by) return text;
  const changes = [[entry.timeAt, timeLike(entry.time, mine[0] + by, count, fps)]];
  if (entry.untilAt) changes.push([entry.untilAt, timeLike(entry.until, frameOf(entry.until, count, fps) + by, 0, fps)]);
  return changes
    .sort(([one], [other]) => other[0] - one[0])
    .reduce((whole, [[from, end], time]) => whole.slice(0, from) + time + whole.slice(end), text);
}

/** The text with one more entry at a frame, which says what holds there; as it is where there is a key already. */
export function added(text, frame, options) {
  const keys = readKeys(text, options);
  if (keys.some((key) => key.at === frame)) return text;
  const entries = readEntries(text, options.numbers);
  const last = entries.at(-1);
  const { before } = changeAt(keys, frame);
  const said = keys[before].text;
  if (!last.timeAt) {
    const head = text.slice(0, last.start) + `0: ${text.slice(last.start, last.end).trim()}`;
    return `${head}\n${frame}: ${text.slice(last.start, last.end).trim()}`;
  }
  const json = text[last.start] === '"';
  const quoted = text[last.end - 1] === '"' || (!options.numbers && /[;\n"]/.test(said));
  const value = quoted ? JSON.stringify(said) : said;
  return `${text.slice(0, last.end)}${quoted ? ",\n" : "\n"}${json ? `"${frame}"` : frame}: ${value}${text.slice(last.end)}`;
}

/** The text without one key's entry; as it is where that is the only one. */
export function removed(text, key, options) {
  const entries = readEntries(text, options.numbers);
  const number = readKeys(text, options)[key].entry;
  if (entries.length < 2) return text;
  const [from, to] =
    number + 1 < entries.length
      ? [entries[number].start, entries[number + 1].start]
      : [entries[number - 1].end, entries[number].end];
  return text.slice(0, from) + text.slice(to);
}
