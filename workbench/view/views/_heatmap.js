// @ts-check
/** A grid of coloured cells, layer by expert: geometry, picture and colour key. */
import { inkOn, cividis } from "./_palette.js";

/** Colours run from no load to this many times the fair share, the same for every step, so that steps compare. */
export const TOP_RATIO = 3;

/**
 * @typedef {import("./_load.js").Cell} Cell
 * @typedef {{ left: number, top: number, cellWidth: number, cellHeight: number, layers: number, experts: number }} Grid
 */

/** @param {number} width @param {number} layers @param {number} experts @returns {Grid} */
export function gridOf(width, layers, experts) {
  const left = width < 420 ? 34 : 62;
  const cellHeight = Math.max(9, Math.min(34, Math.floor(420 / layers)));
  return { left, top: 4, cellWidth: (width - left - 2) / experts, cellHeight, layers, experts };
}

/** @param {Grid} grid @returns {number} */
export function gridHeight({ top, cellHeight, layers }) {
  return top + cellHeight * layers + 40;
}

/** @param {Grid} grid @param {{ x: number, y: number }} place @returns {{ layer: number, expert: number } | null} */
export function cellAt({ left, top, cellWidth, cellHeight, layers, experts }, { x, y }) {
  const [expert, layer] = [Math.floor((x - left) / cellWidth), Math.floor((y - top) / cellHeight)];
  return expert >= 0 && expert < experts && layer >= 0 && layer < layers ? { layer, expert } : null;
}

/** @param {Cell} cell @returns {string | null} null for no data */
export function colourOf({ ratio, kind }) {
  return kind === "empty" ? null : cividis(ratio / TOP_RATIO);
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Grid} grid
 * @param {Cell[][]} rows
 * @param {{ names: (string | number)[], cursor: { layer: number, expert: number } | null }} options
 * @param {(name: string) => string} colour
 */
export function drawGrid(context, grid, rows, { names, cursor }, colour) {
  rows.forEach((row, layer) => row.forEach((cell, expert) => drawCell(context, grid, layer, expert, cell, colour)));
  drawLabels(context, grid, names, colour);
  if (cursor === null) return;
  const { x, y, width, height } = box(grid, cursor.layer, cursor.expert);
  context.lineWidth = 3;
  context.strokeStyle = colour("surface");
  context.strokeRect(x, y, width, height);
  context.lineWidth = 2;
  context.strokeStyle = colour("text");
  context.strokeRect(x - 1.5, y - 1.5, width + 3, height + 3);
}

/** @param {Grid} grid @param {number} layer @param {number} expert */
function box({ left, top, cellWidth, cellHeight }, layer, expert) {
  const gap = cellWidth > 6 && cellHeight > 8 ? 1 : 0;
  const x = Math.round(left + expert * cellWidth);
  const y = top + layer * cellHeight;
  return { x, y, width: Math.max(1, Math.round(left + (expert + 1) * cellWidth) - x - gap), height: cellHeight - gap };
}

/**
 * @param {CanvasRenderingContext2D} context @param {Grid} grid @param {number} layer @param {number} expert
 * @param {Cell} cell @param {(name: string) => string} colour
 */
function drawCell(context, grid, layer, expert, cell, colour) {
  const { x, y, width, height } = box(grid, layer, expert);
  const fill = colourOf(cell);
  if (fill === null) {
    context.strokeStyle = colour("empty");
    context.lineWidth = 1;
    context.setLineDash([2, 2]);
    context.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
    context.setLineDash([]);
    return;
  }
  context.fillStyle = fill;
  context.fillRect(x, y, width, height);
  context.fillStyle = inkOn(fill);
  context.textAlign = "center";
  context.textBaseline = "middle";
  const [middleX, middleY] = [x + width / 2, y + height / 2 + 0.5];
  const sign = { none: "×", starved: "▽", overloaded: "▲", empty: "", "": "" }[cell.kind];
  const isRoomy = width >= 30 && height >= 18;
  if (isRoomy && cell.kind !== "none") {
    context.font = `11.5px ${colour("font")}`;
    const value = cell.load * 100;
    const text = value < 10 || (width >= 48 && value < 99.95) ? value.toFixed(1) : value.toFixed(0);
    context.fillText(width >= 48 && sign !== "" ? `${sign} ${text}` : text, middleX, middleY);
  } else if (sign !== "" && width >= 8 && height >= 9) {
    context.font = `${Math.min(15, height - 1)}px ${colour("font")}`;
    context.fillText(sign, middleX, middleY);
  }
}

/** @param {CanvasRenderingContext2D} context @param {Grid} grid @param {(string | number)[]} names @param {(name: string) => string} colour */
function drawLabels(context, grid, names, colour) {
  const { left, top, cellWidth, cellHeight, layers, experts } = grid;
  context.font = `12px ${colour("font")}`;
  context.fillStyle = colour("muted");
  context.textBaseline = "middle";
  context.textAlign = "right";
  const everyLayer = Math.ceil(14 / cellHeight);
  names.forEach((name, layer) => {
    if (layer % everyLayer !== 0) return;
    context.fillText(left > 40 ? `layer ${name}` : `L${name}`, left - 7, top + (layer + 0.5) * cellHeight);
  });
  context.textBaseline = "top";
  context.textAlign = "center";
  const every = [1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 128, 256].find((step) => step * cellWidth >= 20) ?? 512;
  const bottom = top + layers * cellHeight;
  for (let expert = 0; expert < experts; expert += every) {
    context.fillText(String(expert), left + (expert + 0.5) * cellWidth, bottom + 5);
  }
  context.fillText("expert (each layer has its own)", left + (experts * cellWidth) / 2, bottom + 22);
}

/**
 * The colour key: from no load to the top of the scale.
 * @param {CanvasRenderingContext2D} context @param {number} width @param {number} fair share of one expert, 0..1
 * @param {(name: string) => string} colour
 */
export function drawKey(context, width, fair, colour) {
  const [left, right, top, height] = [8, 30, 2, 12];
  const span = width - left - right;
  for (let x = 0; x < span; x += 1) {
    context.fillStyle = cividis(x / (span - 1));
    context.fillRect(left + x, top, 1, height);
  }
  context.font = `12px ${colour("font")}`;
  context.textBaseline = "top";
  context.textAlign = "center";
  for (const ratio of [0, 1, 2, TOP_RATIO]) {
    const x = left + (span * ratio) / TOP_RATIO;
    context.fillStyle = colour("text");
    context.fillRect(Math.round(x) - (ratio === 1 ? 1 : 0), top + height - 1, ratio === 1 ? 2 : 1, 5);
    const share = `${(fair * ratio * 100).toFixed(fair * ratio < 0.1 ? 1 : 0)} %`;
    context.font = `${ratio === 1 ? "600 " : ""}12px ${colour("font")}`;
    const text = { 0: "0", 1: span > 260 ? `fair share ${share}` : "fair", 2: "2×", [TOP_RATIO]: `≥ ${TOP_RATIO}×` }[ratio] ?? "";
    context.fillText(text, x, top + height + 6);
  }
}
