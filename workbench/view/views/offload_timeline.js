// @ts-check
/** What does offloading cost? Hits, misses, late prefetches and the time that every token waited. */
import { createCanvas, onPointer } from "./_canvas.js";
import { button, h } from "./_dom.js";
import { defineView } from "./_frame.js";
import { grouped, plural, tickText, ticks } from "./_number.js";
import { MOST_COLUMNS, SHOWN, columnsOf, countAt, read, rowWords, sentence, tokenName, total, wait } from "./_offload.js";
import { hues } from "./_palette.js";
import { visible } from "./_tokens.js";

/**
 * @typedef {import("./_frame.js").Frame} Frame
 * @typedef {import("./_offload.js").OffloadData} OffloadData
 * @typedef {{ data: OffloadData | null, columns: ReturnType<typeof columnsOf>, cursor: number }} State
 */

const LISTED = 8;
const LEFT = 52;

/** @param {Frame} frame */
function layout(frame) {
  const keys = h("ul", { class: "moe-keys moe-kinds" });
  const title = h("p", { class: "moe-plot-title" }, "Requests of each token ", h("small", {}));
  const host = h("div", {});
  const readout = h("p", { class: "moe-readout" });
  const listTitle = h("p", { class: "moe-plot-title" }, "Longest waits ", h("small", {}, "— press one to see its token and layer in all views"));
  const list = h("ol", { class: "moe-stalls" });
  const none = h("p", { class: "moe-quiet" }, "Nothing ever waited.");
  const note = /** @type {HTMLElement} */ (title.lastElementChild);
  frame.body.append(keys, title, host, readout, listTitle, list, none);
  return { keys, note, host, readout, listTitle, list, none };
}

/** @param {Frame} frame @returns {import("./_frame.js").Part} */
function create(frame) {
  const ui = layout(frame);
  /** @type {State} */
  const state = { data: null, columns: [], cursor: -1 };
  const surface = createCanvas({ host: ui.host, label: "", signal: frame.signal, height: () => 250, draw: (context, width) => draw(context, width, state, frame) });
  const tell = () => {
    ui.readout.textContent = state.data === null || state.cursor < 0 ? "Point at a token, or move with the arrow keys, to read it." : rowWords(state.data, state.cursor);
    surface.schedule();
  };
  const moveTo = (/** @type {number} */ row) => {
    state.cursor = row;
    tell();
  };
  const choose = () => {
    if (state.data !== null && state.cursor >= 0) frame.choose(selectionOf(state.data, state.cursor));
  };
  onPointer(surface.canvas, (place, isPress) => {
    if (place === null || state.data === null) return;
    const row = rowAt(place.x, surface.canvas.clientWidth, state.data.steps.length);
    if (isPress || row !== state.cursor) moveTo(row);
    if (isPress) choose();
  }, frame.signal);
  surface.canvas.addEventListener("keydown", (event) => {
    if (state.data === null) return;
    if (event.key === "Enter") choose();
    const row = keyTarget(event.key, state.cursor, state.data.steps.length);
    if (row === undefined) return;
    event.preventDefault();
    moveTo(row);
    frame.say(ui.readout.textContent ?? "");
  }, { signal: frame.signal });
  ui.list.addEventListener("click", (event) => {
    const pressed = event.target instanceof Element ? event.target.closest("button") : null;
    if (pressed === null || state.data === null) return;
    const { stalls } = state.data;
    const i = Number(pressed.dataset.stall);
    moveTo(stalls.moment[i]);
    frame.choose({ ...selectionOf(state.data, stalls.moment[i]), layer: stalls.layer[i], expert: stalls.expert[i] });
  }, { signal: frame.signal });
  return {
    update(payload) {
      state.data = read(payload);
      state.columns = columnsOf(state.data);
      state.cursor = Math.min(state.cursor, state.data.steps.length - 1);
      show(ui, state.data, frame, surface.canvas);
      tell();
    },
    redraw: () => {
      if (state.data !== null) show(ui, state.data, frame, surface.canvas);
      surface.schedule();
    },
    table: () => tableOf(/** @type {OffloadData} */ (state.data)),
    select: ({ token, step }) => {
      if (state.data === null) return;
      const byToken = token >= 0 ? state.data.index.indexOf(token) : -1;
      const row = byToken >= 0 ? byToken : state.data.steps.indexOf(step);
      if (row >= 0) moveTo(row);
    },
  };
}

/** @param {OffloadData} data @param {number} row @returns {Record<string, number>} */
function selectionOf({ steps, index }, row) {
  return { step: steps[row], ...(index[row] >= 0 ? { token: index[row] } : {}) };
}

/** @param {string} key @param {number} now @param {number} count @returns {number | undefined} */
function keyTarget(key, now, count) {
  const page = Math.max(1, Math.round(count / 10));
  /** @type {Record<string, number>} */
  const moves = { ArrowLeft: now - 1, ArrowRight: now + 1, PageUp: now - page, PageDown: now + page, Home: 0, End: count - 1 };
  if (key === "Escape") return -1;
  return key in moves ? Math.max(0, Math.min(count - 1, moves[key])) : undefined;
}

/** @param {number} x @param {number} width @param {number} count @returns {number} */
function rowAt(x, width, count) {
  return Math.max(0, Math.min(count - 1, Math.floor(((x - LEFT) / Math.max(1, width - LEFT - 8)) * count)));
}

/** @param {ReturnType<typeof layout>} ui @param {OffloadData} data @param {Frame} frame @param {HTMLCanvasElement} canvas */
function show(ui, data, frame, canvas) {
  frame.lead(sentence(data));
  canvas.setAttribute("aria-label", `Requests and waits of ${plural(data.steps.length, "token")}. ${sentence(data)} Left and right move between tokens.`);
  const palette = hues(frame.isDark());
  ui.keys.replaceChildren(
    ...SHOWN.filter(({ kind }) => total(data, kind) > 0).map(({ kind, word, hue, isStriped }) => {
      const swatch = h("span", { class: isStriped ? "moe-swatch moe-striped" : "moe-swatch", "aria-hidden": "true" });
      swatch.style.setProperty("--hue", palette[hue]);
      return h("li", {}, swatch, `${word}: ${grouped(total(data, kind))}`);
    }),
    h("li", {}, `evicted: ${grouped(total(data, "evict"))}`),
  );
  const perColumn = Math.ceil(data.steps.length / MOST_COLUMNS);
  ui.note.textContent = `[${data.pagesEach === null ? "experts" : "pages of experts"} asked for: from hits below to misses on top] and, beneath, the time it waited [ms]${perColumn > 1 ? `; a column is ${perColumn} tokens: their mean, and the longest wait` : ""}`;
  const { stalls, kinds } = data;
  const count = Math.min(LISTED, stalls.seconds.length);
  ui.none.hidden = count > 0;
  ui.list.replaceChildren(...Array.from({ length: count }, (_, i) => {
    const why = SHOWN.find(({ kind }) => kind === kinds[stalls.kind[i]])?.word ?? kinds[stalls.kind[i]];
    const press = button(wait(stalls.seconds[i]), { "data-stall": String(i) });
    return h("li", {}, press, h("span", {}, `expert ${stalls.expert[i]} of layer ${stalls.layer[i]}, ${why}: ${tokenName(data, stalls.moment[i])}`));
  }));
}

/** @param {CanvasRenderingContext2D} context @param {number} width @param {State} state @param {Frame} frame */
function draw(context, width, { data, columns, cursor }, frame) {
  if (data === null) return;
  const span = Math.max(1, width - LEFT - 8);
  const cell = span / columns.length;
  const upper = { top: 10, height: 120, most: Math.max(1, ...columns.map(({ requests }) => requests)) };
  const lower = { top: 158, height: 62, most: Math.max(1e-3, ...columns.map((column) => column.wait)) };
  drawScale(context, upper, "", width, frame);
  drawScale(context, lower, " ms", width, frame);
  const palette = hues(frame.isDark());
  columns.forEach(({ counts, wait: longest }, i) => {
    const x = Math.floor(LEFT + i * cell);
    const bar = Math.max(1, Math.floor(LEFT + (i + 1) * cell) - x - (cell > 4 ? 1 : 0));
    let y = upper.top + upper.height;
    counts.forEach((count, k) => {
      const height = (upper.height * count) / upper.most;
      context.fillStyle = palette[SHOWN[k].hue];
      context.fillRect(x, y - height, bar, height);
      if (SHOWN[k].isStriped && bar > 3) drawStripes(context, { x, y: y - height, width: bar, height }, frame.colour("surface"));
      y -= height;
    });
    const height = (lower.height * longest) / lower.most;
    context.fillStyle = frame.colour("event");
    context.fillRect(x, lower.top + lower.height - height, bar, height);
  });
  context.font = `12px ${frame.colour("font")}`;
  context.fillStyle = frame.colour("muted");
  context.textBaseline = "top";
  context.textAlign = "left";
  context.fillText(`step ${grouped(data.steps[0])}`, LEFT, 228);
  context.textAlign = "right";
  context.fillText(`step ${grouped(data.steps[data.steps.length - 1])}`, width - 8, 228);
  if (cursor < 0) return;
  context.strokeStyle = frame.colour("text");
  context.lineWidth = 1.5;
  context.strokeRect(LEFT + (span * cursor) / data.steps.length - 1, 4, Math.max(3, span / data.steps.length), 220);
}

/** @param {CanvasRenderingContext2D} context @param {{ x: number, y: number, width: number, height: number }} area @param {string} colour */
function drawStripes(context, { x, y, width, height }, colour) {
  context.fillStyle = colour;
  for (let at = y + 2; at < y + height; at += 4) context.fillRect(x, at, width, 1);
}

/** @param {CanvasRenderingContext2D} context @param {{ top: number, height: number, most: number }} area @param {string} unit @param {number} width @param {Frame} frame */
function drawScale(context, { top, height, most }, unit, width, frame) {
  context.font = `12px ${frame.colour("font")}`;
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const tick of ticks(0, most, 3).filter((value) => value <= most * 1.001)) {
    const y = Math.round(top + height * (1 - tick / most)) + 0.5;
    context.fillStyle = frame.colour(tick === 0 ? "line" : "grid");
    context.fillRect(LEFT, y, width - LEFT - 8, 1);
    context.fillStyle = frame.colour("muted");
    context.fillText(`${tickText(tick)}${tick > 0 ? unit : ""}`, LEFT - 6, y);
  }
}

/** @param {OffloadData} data @returns {import("./_frame.js").Table} the newest tokens first */
function tableOf(data) {
  const count = Math.min(500, data.steps.length);
  const rows = Array.from({ length: count }, (_, i) => {
    const row = data.steps.length - 1 - i;
    const text = data.pieces[row] ? visible(data.pieces[row]) : "–";
    return [data.steps[row], data.tokens[row], text, ...SHOWN.map(({ kind }) => countAt(data, row, kind)), countAt(data, row, "evict"), (data.stall[row] * 1000).toFixed(3), data.bytes[row]];
  });
  const caption = `Events of each token, the newest first${count < data.steps.length ? `, ${count} of ${data.steps.length}` : ""}. Wait in milliseconds.`;
  return { caption, head: ["Step", "Token", "Text", ...SHOWN.map(({ word }) => word), "evicted", "wait [ms]", "bytes moved"], rows };
}

const STYLE = `
.moe-kinds { margin: 0 0 10px; color: var(--moe-text); }
.moe-swatch { display: inline-block; width: 14px; height: 14px; background: var(--hue); }
.moe-striped { background: repeating-linear-gradient(var(--hue) 0 3px, var(--moe-surface) 3px 4px); }
.moe-stalls { display: grid; gap: 6px; margin: 8px 0 0; padding: 0; list-style: none; font-size: 13px; }
.moe-stalls li { display: flex; flex-wrap: wrap; gap: 4px 12px; align-items: center; }
.moe-stalls .moe-button { min-width: 84px; font-variant-numeric: tabular-nums; }
.moe-offload_timeline .moe-readout + .moe-plot-title { margin-top: 14px; }
.moe-quiet { margin: 8px 0 0; font-size: 13px; color: var(--moe-muted); }
`;

export default defineView({ name: "offload_timeline", title: "What does offloading cost?", style: STYLE, create });
