/**
 * A canvas under a node's other widgets that is drawn anew whenever what it shows has changed. It is saved nowhere: a workflow looks the
 * same to ComfyUI with and without it.
 */

const NARROWEST = 340; // pixels, of a new node

/** Node types of ComfyUI that hand on one value, and those that hand on what comes in. */
const VALUES = ["PrimitiveInt", "PrimitiveFloat", "PrimitiveString", "PrimitiveStringMultiline"];
const PASSING = ["Reroute"];
/** Node types whose text output is known before they run: (node) -> text. Other files add to it. */
export const TEXTS = {};

/** The node behind an input by its name, or null; a reroute is looked through. */
export function sourceOf(node, name) {
  const slot = node.inputs?.findIndex((input) => input.name === name || input.widget?.name === name) ?? -1;
  const source = slot < 0 || node.inputs[slot].link == null ? null : (node.getInputNode(slot) ?? null);
  return source && PASSING.includes(source.type) ? sourceOf(source, source.inputs[0]?.name) : source;
}

/** Whether something is connected to an input. */
export function isConnected(node, name) {
  return node.inputs?.some((input) => (input.name === name || input.widget?.name === name) && input.link != null) ?? false;
}

/** The widget of a name. */
export function widgetOf(node, name) {
  return node.widgets?.find((widget) => widget.name === name);
}

/** The value that a widget will have when queued. Throws an Error where it comes from a node that must run first. */
export function valueOf(node, name) {
  if (!isConnected(node, name)) return widgetOf(node, name)?.value;
  const source = sourceOf(node, name);
  if (source?.type === "PrimitiveNode") return widgetOf(node, name)?.value;
  if (source && VALUES.includes(source.type)) return source.widgets[0].value;
  if (source && source.type in TEXTS) return TEXTS[source.type](source);
  throw new Error(`${name} is connected: drawn when queued, in the node's picture`);
}

/** Puts a text into a widget as if it had been typed, so that others hear of it. */
export function type(node, name, text) {
  const widget = widgetOf(node, name);
  widget.value = text;
  widget.callback?.(text);
  node.graph?.setDirtyCanvas(true, true);
}

/**
 * Adds the canvas. state() gives what is to be shown, as something JSON can tell apart from what was; draw(canvas, state) draws it.
 *
 * The front end has no one event for all the ways in which a widget changes (typing, undo, a loaded workflow, another node), so each
 * animation frame looks; nothing is drawn while nothing changed or the canvas is out of sight.
 */
export function addCanvas(node, name, height, state, draw) {
  const canvas = document.createElement("canvas");
  canvas.className = "longtake-canvas";
  Object.assign(canvas.style, { width: "100%", height: "100%", minHeight: `${height}px`, display: "block", touchAction: "none" });
  const room = () => height + 20; // the front end keeps a margin of 10 pixels
  const widget = node.addDOMWidget(name, "longtake", canvas, {
    serialize: false,
    hideOnZoom: false,
    getValue: () => "",
    setValue: () => {},
    getMinHeight: room,
    getMaxHeight: room,
  });
  widget.serialize = false;
  node.setSize([Math.max(NARROWEST, node.size[0]), Math.max(node.size[1], node.computeSize()[1])]);
  let last = "";
  let removed = false;
  const look = () => {
    if (removed) return;
    if (canvas.isConnected && canvas.clientWidth > 0) {
      const now = state();
      const key = JSON.stringify([now, canvas.clientWidth, canvas.clientHeight, canvas.getBoundingClientRect().width]);
      if (key !== last) draw(canvas, now);
      last = key;
    }
    requestAnimationFrame(look);
  };
  const onRemoved = node.onRemoved;
  node.onRemoved = function (...args) {
    removed = true;
    return onRemoved?.apply(this, args);
  };
  requestAnimationFrame(look);
  return canvas;
}
