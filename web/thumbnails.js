/** The images that are connected to a node, as far as they can be told before it has run, and those of its last run. */

import { api } from "../../scripts/api.js";
import { sourceOf, widgetOf } from "./live_widget.js";

const ONE_FILE = ["LoadImage", "LoadImageOutput"];
const JOINING = ["ImageBatch", "BatchImagesNode"]; // all their images, in order
const SAME_IMAGES = ["ImageScale", "ImageScaleBy", "ImageScaleToTotalPixels", "ImageInvert"];
const SHOWN = "longtake_keyframes"; // what nodes/keyframes/keyframes.py tells of the images of a run
const ANIMATED = /\.(gif|webp|apng|avif)$/i; // one file, any number of images

const OF_LAST_RUN = new WeakMap();

/** Where each image of a node's input images can be fetched from, in order, or null where how many there are is not known yet. */
export function imagesOf(node) {
  return before(node, "images") ?? after(node);
}

function before(node, input) {
  const source = sourceOf(node, input);
  if (!source) return null;
  if (ONE_FILE.includes(source.type)) return fileOf(source);
  if (SAME_IMAGES.includes(source.type)) return before(source, "image");
  if (!JOINING.includes(source.type)) return null;
  const parts = source.inputs.filter(({ type, link }) => type === "IMAGE" && link != null).map(({ name }) => before(source, name));
  return parts.length && parts.every((part) => part !== null) ? parts.flat() : null;
}

function fileOf(node) {
  const [, path, kind] = /^(.*?)(?: \[(\w+)\])?$/.exec(widgetOf(node, "image")?.value ?? "");
  if (!path || ANIMATED.test(path)) return null;
  const cut = path.lastIndexOf("/");
  return [address(path.slice(cut + 1), path.slice(0, Math.max(0, cut)), kind ?? "input")];
}

function after(node) {
  return OF_LAST_RUN.get(node)?.map(({ filename, subfolder, type }) => address(filename, subfolder, type)) ?? null;
}

/** Keeps what each run tells of a node's images. Kept with the node, not its number: another workflow may have a node of that number. */
export function listen(node) {
  const onExecuted = node.onExecuted;
  node.onExecuted = function (output, ...rest) {
    if (output?.[SHOWN]) OF_LAST_RUN.set(node, output[SHOWN]);
    return onExecuted?.call(this, output, ...rest);
  };
}

function address(filename, subfolder, type) {
  return api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);
}

const LOADED = new Map();

/** The picture at an address once it is loaded, else null; loaded(address) is called when it is. */
export function pictureAt(url, loaded) {
  if (!LOADED.has(url)) {
    const picture = new Image();
    picture.onload = () => loaded(url);
    picture.src = url;
    LOADED.set(url, picture);
  }
  const picture = LOADED.get(url);
  return picture.complete && picture.naturalWidth ? picture : null;
}
