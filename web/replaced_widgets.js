/**
 * Widgets that do nothing while something is connected are greyed out: by class, an input, and the widgets that it replaces. The same
 * table is REPLACED of the node's class.
 */

import { app } from "../../scripts/app.js";
import { isConnected, widgetOf } from "./live_widget.js";

export const REPLACED = { LongTakeRollout: { noise_levels: ["frames", "schedule", "steps", "lag", "block"] } };

function show(node) {
  for (const [input, names] of Object.entries(REPLACED[node.comfyClass] ?? {})) {
    for (const name of names) {
      const widget = widgetOf(node, name);
      if (widget) widget.disabled = isConnected(node, input);
    }
  }
}

app.registerExtension({
  name: "LongTake.ReplacedWidgets",
  nodeCreated(node) {
    if (!(node.comfyClass in REPLACED)) return;
    const before = node.onConnectionsChange;
    node.onConnectionsChange = function (...args) {
      const given = before?.apply(this, args);
      show(this);
      return given;
    };
  },
  loadedGraphNode: show,
});
