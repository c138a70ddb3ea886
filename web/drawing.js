/** What the widgets draw with: the colours of the node's own pictures (modules/draw/canvas.py, modules/draw/pictures.py), ticks, text. */

export const PAPER = "#181a1e";
export const EMPTY = "#2c2f36";
export const TEXT = "#d8d8d8";
export const ALARM = "#f5aa46";
export const INKS = ["#40c8be", "#f5aa46", "#aa96fa"];
const RAMP = [
  [46, 20, 84],
  [48, 105, 143],
  [54, 184, 120],
  [252, 232, 36],
];

/** The colour of a value from 0, dark, to 1, bright: [red, green, blue] in 0..255. */
export function ramp(value) {
  const place = Math.max(0, Math.min(1, value)) * (RAMP.length - 1);
  const low = Math.min(Math.floor(place), RAMP.length - 2);
  return RAMP[low].map((channel, i) => Math.round(channel + (RAMP[low + 1][i] - channel) * (place - low)));
}

/** Numbers to write along an axis of so many pixels: round ones, about 40 pixels apart. */
export function ticks(count, pixels) {
  const least = (40 * count) / pixels;
  let apart = 1;
  for (let i = 0; apart < least; i++) apart = [1, 2, 5][i % 3] * 10 ** Math.floor(i / 3);
  return Array.from({ length: Math.ceil(count / apart) }, (_, i) => i * apart);
}

/** An empty picture of a canvas's size on the page, sharp at the zoom it is shown at. Gives {ctx, width, height} in CSS pixels. */
export function freshPicture(canvas) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const zoom = Math.min(4, Math.max(1, (window.devicePixelRatio * canvas.getBoundingClientRect().width) / width));
  canvas.width = Math.round(width * zoom);
  canvas.height = Math.round(height * zoom);
  const ctx = canvas.getContext("2d");
  ctx.scale(zoom, zoom);
  ctx.fillStyle = PAPER;
  ctx.fillRect(0, 0, width, height);
  ctx.font = "11px sans-serif";
  ctx.textBaseline = "middle";
  return { ctx, width, height };
}

/** Text from the left of a box, in lines that are as wide as the box. Gives the height of what was written. */
export function paragraph(ctx, text, left, top, width, colour = TEXT) {
  ctx.fillStyle = colour;
  ctx.textAlign = "left";
  let line = "";
  let y = top + 7;
  for (const word of text.split(" ")) {
    const longer = line ? `${line} ${word}` : word;
    if (line && ctx.measureText(longer).width > width) {
      ctx.fillText(line, left, y);
      line = word;
      y += 14;
    } else {
      line = longer;
    }
  }
  ctx.fillText(line, left, y);
  return y + 7 - top;
}

/** A matrix as coloured cells in a box: value(row, column) from 0 to 1. Where cells are smaller than a pixel some are left out evenly. */
export function heatMap(ctx, rows, columns, value, box) {
  const tall = Math.min(rows, Math.max(1, Math.floor(box.height)));
  const wide = Math.min(columns, Math.max(1, Math.floor(box.width)));
  const cells = new ImageData(wide, tall);
  for (let y = 0; y < tall; y++) {
    const row = tall > 1 ? Math.round((y * (rows - 1)) / (tall - 1)) : 0;
    for (let x = 0; x < wide; x++) {
      const column = wide > 1 ? Math.round((x * (columns - 1)) / (wide - 1)) : 0;
      cells.data.set([...ramp(value(row, column)), 255], 4 * (y * wide + x));
    }
  }
  const small = new OffscreenCanvas(wide, tall);
  small.getContext("2d").putImageData(cells, 0, 0);
  ctx.imageSmoothingEnabled = false;
  ctx.drawImage(small, box.left, box.top, box.width, box.height);
}
