// @ts-check
/** A square table as a picture: cells with colour and number, a cursor for pointer and keys, and a sentence on it. */
import { createCanvas, onPointer } from "./_canvas.js";
import { h } from "./_dom.js";
import { inkOn } from "./_palette.js";

/**
 * @typedef {{ fill: string | null, text: string, isOpen?: boolean, isSign?: boolean, sign?: string }} MatrixCell fill: null for no data; isOpen: crossed, not
 *   judged; isSign: the text is a sign that fits a small cell; sign: stands in its place where the text does not fit
 * @typedef {{
 *   rows: string[], columns: string[], rowTitle: string, columnTitle: string,
 *   cells: MatrixCell[][], words: (row: number, column: number) => string, label: string,
 * }} MatrixData
 * @typedef {{ row: number, column: number }} Place
 * @typedef {{ show: (data: MatrixData) => void, schedule: () => void, moveTo: (place: Place | null) => void }} Matrix
 */

const [TOP, BOTTOM] = [4, 44];

/** @param {number} width @param {MatrixData | null} data */
function geometry(width, data) {
  const [rows, columns] = [Math.max(1, data?.rows.length ?? 1), Math.max(1, data?.columns.length ?? 1)];
  const left = 46;
  const size = Math.min(40, (width - left - 2) / columns, Math.max(5, 560 / rows));
  return { left, size, rows, columns, bottom: TOP + size * rows };
}

/**
 * @param {{ host: HTMLElement, frame: import("./_frame.js").Frame, choose: (place: Place) => void, onMove?: (place: Place | null) => void }} options
 * @returns {Matrix}
 */
export function createMatrix({ host, frame, choose, onMove = () => {} }) {
  /** @type {MatrixData | null} */
  let data = null;
  /** @type {Place | null} */
  let cursor = null;
  const readout = h("p", { class: "moe-readout" });
  const surface = createCanvas({
    host, label: "", signal: frame.signal,
    height: (width) => geometry(width, data).bottom + BOTTOM,
    draw: (context, width) => data !== null && draw(context, geometry(width, data), data, cursor, frame.colour),
  });
  host.after(readout);
  const tell = () => {
    readout.textContent = data === null || cursor === null ? "Point at a cell, or move with the arrow keys, to read it." : data.words(cursor.row, cursor.column);
    surface.schedule();
  };
  const moveTo = (/** @type {Place | null} */ place) => {
    cursor = place;
    tell();
    onMove(place);
  };
  onPointer(surface.canvas, (at, isPress) => {
    if (at === null || data === null) return;
    const { left, size, rows, columns } = geometry(surface.canvas.clientWidth, data);
    const [row, column] = [Math.floor((at.y - TOP) / size), Math.floor((at.x - left) / size)];
    if (row < 0 || column < 0 || row >= rows || column >= columns) return;
    if (isPress || cursor?.row !== row || cursor.column !== column) moveTo({ row, column });
    if (isPress) choose({ row, column });
  }, frame.signal);
  surface.canvas.addEventListener("keydown", (event) => {
    if (data === null) return;
    if (event.key === "Enter" && cursor !== null) choose(cursor);
    const target = step(event.key, cursor, data.rows.length, data.columns.length);
    if (target === undefined) return;
    event.preventDefault();
    moveTo(target);
    frame.say(readout.textContent ?? "");
  }, { signal: frame.signal });
  return {
    show(fresh) {
      data = fresh;
      if (cursor !== null && (cursor.row >= data.rows.length || cursor.column >= data.columns.length)) cursor = null;
      surface.canvas.setAttribute("aria-label", `${data.label} Arrow keys move between cells.`);
      tell();
    },
    schedule: surface.schedule,
    moveTo,
  };
}

/**
 * Where a key leads in a grid.
 * @param {string} key @param {Place | null} cursor @param {number} rows @param {number} columns
 * @returns {Place | null | undefined} null: no cell any more; undefined: not a key of the grid
 */
export function step(key, cursor, rows, columns) {
  if (key === "Escape") return null;
  const { row, column } = cursor ?? { row: 0, column: -1 };
  /** @type {Record<string, Place>} */
  const moves = {
    ArrowLeft: { row, column: column - 1 },
    ArrowRight: { row, column: column + 1 },
    ArrowUp: { row: row - 1, column },
    ArrowDown: { row: row + (cursor === null ? 0 : 1), column },
    Home: { row, column: 0 },
    End: { row, column: columns - 1 },
    PageUp: { row: 0, column },
    PageDown: { row: rows - 1, column },
  };
  const target = moves[key];
  if (target === undefined) return undefined;
  const clamp = (/** @type {number} */ value, /** @type {number} */ count) => Math.max(0, Math.min(count - 1, value));
  return { row: clamp(target.row, rows), column: clamp(target.column, columns) };
}

/**
 * @param {CanvasRenderingContext2D} context @param {ReturnType<typeof geometry>} grid @param {MatrixData} data
 * @param {Place | null} cursor @param {(name: string) => string} colour
 */
function draw(context, grid, data, cursor, colour) {
  data.cells.forEach((row, r) => row.forEach((cell, c) => drawCell(context, box(grid, r, c), cell, colour)));
  drawNames(context, grid, data, colour);
  if (cursor === null) return;
  const { x, y, width, height } = box(grid, cursor.row, cursor.column);
  context.lineWidth = 3;
  context.strokeStyle = colour("surface");
  context.strokeRect(x, y, width, height);
  context.lineWidth = 2;
  context.strokeStyle = colour("text");
  context.strokeRect(x - 1.5, y - 1.5, width + 3, height + 3);
}

/** @param {ReturnType<typeof geometry>} grid @param {number} row @param {number} column */
function box({ left, size }, row, column) {
  const gap = size > 8 ? 1 : 0;
  const [x, y] = [Math.round(left + column * size), Math.round(TOP + row * size)];
  return { x, y, width: Math.max(1, Math.round(left + (column + 1) * size) - x - gap), height: Math.max(1, Math.round(TOP + (row + 1) * size) - y - gap) };
}

/**
 * @param {CanvasRenderingContext2D} context @param {ReturnType<typeof box>} place @param {MatrixCell} cell
 * @param {(name: string) => string} colour
 */
function drawCell(context, { x, y, width, height }, { fill, text, isOpen, isSign, sign }, colour) {
  if (fill !== null) {
    context.fillStyle = fill;
    context.fillRect(x, y, width, height);
  } else if (width > 4) {
    context.strokeStyle = colour(isOpen ? "empty" : "grid");
    context.lineWidth = 1;
    context.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
    if (isOpen && width > 8) {
      context.beginPath();
      context.moveTo(x + width - 3, y + 3);
      context.lineTo(x + 3, y + height - 3);
      context.stroke();
    }
  }
  const shown = isSign || width >= 20 ? text : (sign ?? "");
  if (shown === "" || width < 12) return;
  context.font = `${Math.min(width < 27 ? 10 : 11.5, width * 0.8)}px ${colour("font")}`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillStyle = fill === null ? colour("muted") : inkOn(fill);
  context.fillText(shown, x + width / 2, y + height / 2 + 0.5);
}

/** @param {CanvasRenderingContext2D} context @param {ReturnType<typeof geometry>} grid @param {MatrixData} data @param {(name: string) => string} colour */
function drawNames(context, { left, size, rows, columns, bottom }, data, colour) {
  const every = (/** @type {number} */ room) => [1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 128].find((count) => count * size >= room) ?? 256;
  context.font = `12px ${colour("font")}`;
  context.fillStyle = colour("muted");
  context.textBaseline = "middle";
  context.textAlign = "right";
  for (let row = 0; row < rows; row += every(14)) context.fillText(data.rows[row] ?? "", left - 6, TOP + (row + 0.5) * size);
  context.textBaseline = "top";
  context.textAlign = "center";
  for (let column = 0; column < columns; column += every(20)) context.fillText(data.columns[column] ?? "", left + (column + 0.5) * size, bottom + 5);
  const middle = left + (columns * size) / 2;
  context.textAlign = columns * size < context.measureText(data.columnTitle).width ? "left" : "center";
  context.fillText(data.columnTitle, context.textAlign === "left" ? left : middle, bottom + 24);
  context.save();
  context.translate(6, TOP + (rows * size) / 2);
  context.rotate(-Math.PI / 2);
  context.textAlign = "center";
  if (rows * size > context.measureText(data.rowTitle).width) context.fillText(data.rowTitle, 0, -4);
  context.restore();
}
