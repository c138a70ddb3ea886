/** Noise Levels: the schedule drawn while its widgets are changed; frames to the right, model calls downwards, bright is noise. */

import { app } from "../../scripts/app.js";
import { ALARM, freshPicture, heatMap, paragraph, TEXT, ticks } from "./drawing.js";
import { costOf, planned } from "./level_matrix.js";
import { addCanvas, valueOf } from "./live_widget.js";

const NODE = "LongTakeNoiseLevels";
const WIDGETS = ["frames", "schedule", "steps", "lag", "block", "known", "known_at", "custom", "window"];
const HEIGHT = 190;
const [LEFT, TOP, RIGHT, BOTTOM] = [34, 36, 8, 6];

/** What the widgets say, or why that is not known. */
function state(node) {
  try {
    return { values: Object.fromEntries(WIDGETS.map((name) => [name, valueOf(node, name)])) };
  } catch (error) {
    return { refusal: error.message };
  }
}

function draw(canvas, { values, refusal }) {
  const { ctx, width, height } = freshPicture(canvas);
  let levels;
  let cost;
  try {
    if (refusal) throw new Error(refusal);
    levels = planned(values);
    cost = costOf(levels, values.window);
  } catch (error) {
    paragraph(ctx, error.message, 8, 8, width - 16, ALARM);
    return;
  }
  const text = cost.refusal || `${cost.calls} model calls, ${cost.each} per new frame; ${cost.least} in flight`;
  const used = paragraph(ctx, text, 8, 4, width - 16, cost.refusal ? ALARM : TEXT);
  const top = Math.max(TOP, used + 22);
  const box = { left: LEFT, top, width: width - LEFT - RIGHT, height: height - top - BOTTOM };
  const rows = levels.callsTotal + 1;
  heatMap(ctx, rows, levels.frames, (row, frame) => levels.level(row, frame) / levels.steps, box);
  axes(ctx, rows, levels.frames, box);
}

function axes(ctx, rows, frames, box) {
  ctx.fillStyle = TEXT;
  ctx.textAlign = "center";
  for (const frame of ticks(frames, box.width)) ctx.fillText(frame, box.left + ((frame + 0.5) * box.width) / frames, box.top - 8);
  ctx.textAlign = "right";
  for (const row of ticks(rows, box.height)) ctx.fillText(row, box.left - 5, box.top + ((row + 0.5) * box.height) / rows);
}

app.registerExtension({
  name: "LongTake.NoiseLevels",
  nodeCreated(node) {
    if (node.comfyClass === NODE) addCanvas(node, "drawing", HEIGHT, () => state(node), draw);
  },
});
