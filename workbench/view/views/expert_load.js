// @ts-check
/** Which experts do the work? Load of every expert in every layer, at any step, over any window. */
import { createCanvas, onPointer } from "./_canvas.js";
import { button, h, selectField, setOptions, sliderField } from "./_dom.js";
import { defineView } from "./_frame.js";
import { TOP_RATIO, cellAt, drawGrid, drawKey, gridHeight, gridOf } from "./_heatmap.js";
import { cells, findings, headline, meanLoad, readLoad } from "./_load.js";
import { createPlayer } from "./_player.js";
import { grouped, nearest, percent, plural, times } from "./_number.js";
import { TIMELINE_HEIGHT, stepAt, timelinePainter } from "./_timeline.js";

/**
 * @typedef {import("./_frame.js").Frame} Frame
 * @typedef {import("./_load.js").LoadData} LoadData
 * @typedef {{
 *   payload: import("./_frame.js").Payload | null, phase: string, data: LoadData | null, index: number, window: string,
 *   rows: import("./_load.js").Cell[][], cursor: { layer: number, expert: number } | null,
 * }} State
 */

const PHASES = { train: "training", eval: "evaluation", prefill: "prompts", decode: "generated text" };

const WINDOWS = /** @type {[string, string][]} */ ([["1", "this step"], ["10", "last 10 steps"], ["50", "last 50 steps"], ["all", "all steps so far"]]);

/** @param {State} state @returns {number} kept index before the window, -1 for the beginning */
function windowStart({ data, index, window }) {
  if (data === null || window === "all") return -1;
  let start = index - 1;
  while (start >= 0 && data.rows[start] > data.rows[index] - Number(window)) start -= 1;
  return start;
}

/** @param {State} state @returns {ArrayLike<number>} */
function windowLoad(state) {
  const data = /** @type {LoadData} */ (state.data);
  const size = data.layers.length * data.experts;
  if (state.window === "1") return data.load.subarray(state.index * size, (state.index + 1) * size);
  return meanLoad(data, windowStart(state), state.index);
}

/** @param {State} state @returns {string} "At step 120," or "Over steps 111 to 120," */
function when(state) {
  const { data, index, window, phase } = state;
  if (data === null) return "";
  const unit = phase === "prefill" || phase === "decode" ? "forward pass" : "step";
  const first = data.rows[Math.max(0, windowStart(state) + 1)];
  const count = windowStart(state) < 0 ? data.rows[index] + 1 : data.rows[index] - data.rows[windowStart(state)];
  if (window === "1" || count <= 1 || first < 0) return `At ${unit} ${grouped(data.steps[index])}`;
  return `Over the ${grouped(count)} recorded ${unit === "step" ? "steps" : "passes"} up to ${grouped(data.steps[index])}`;
}

/** @param {State} state @param {{ layer: number, expert: number }} place @returns {string} */
function cellText({ data, rows }, { layer, expert }) {
  if (data === null) return "";
  const cell = rows[layer][expert];
  const name = `Layer ${data.layers[layer]}, expert ${expert}`;
  if (cell.kind === "empty") return `${name}: no data in this window.`;
  if (cell.kind === "none") return `${name}: no tokens in this window.`;
  return `${name}: ${percent(cell.load)} of the layer's assignments, ${times(cell.ratio)} its fair share.`;
}

/** @param {Frame} frame */
function layout(frame) {
  const phase = selectField("Tokens of", []);
  const span = selectField("Average over", WINDOWS);
  const scrub = sliderField("Step", {});
  scrub.field.classList.add("moe-wide");
  const play = button("▶ Play");
  frame.toolbar.append(phase.field, span.field, play, scrub.field);
  const host = h("div", {});
  const readout = h("p", { class: "moe-readout" });
  const keyHost = h("div", {});
  const signs = h("ul", { class: "moe-keys" });
  for (const text of ["× no tokens", "▽ under a tenth of a fair share", "▲ over twice a fair share", "numbers in cells: share of the layer's assignments [%]"]) {
    signs.append(h("li", {}, text));
  }
  const list = h("ul", { class: "moe-findings", "aria-label": "What stands out" });
  const timelineTitle = h("p", { class: "moe-plot-title" }, "Balance over time ");
  timelineTitle.append(h("small", {}, "[busiest expert ÷ fair share, mean of the layers; 1 is perfect balance] — click to go there"));
  const timelineHost = h("div", {});
  frame.body.append(h("div", { class: "moe-key" }, keyHost), host, readout, signs, list, h("div", { class: "moe-timeline" }, timelineTitle, timelineHost));
  return { phase, span, scrub, play, host, readout, keyHost, list, timelineHost };
}

/** @param {Frame} frame @returns {import("./_frame.js").Part} */
function create(frame) {
  const ui = layout(frame);
  /** @type {State} */
  const state = { payload: null, phase: "", data: null, index: 0, window: "1", rows: [], cursor: null };
  const { signal, colour } = frame;
  const shape = () => [state.rows.length || 1, state.rows[0]?.length || 1];
  const heat = createCanvas({
    host: ui.host, label: "Load of each expert in each layer", signal,
    height: (width) => gridHeight(gridOf(width, shape()[0], shape()[1])),
    draw: (context, width) => {
      const names = state.data?.layers ?? [];
      drawGrid(context, gridOf(width, shape()[0], shape()[1]), state.rows, { names, cursor: state.cursor }, colour);
    },
  });
  const key = createCanvas({
    host: ui.keyHost, label: `Colour key: dark blue is no load, yellow is ${TOP_RATIO} times the fair share or more`, signal,
    height: () => 36, draw: (context, width) => drawKey(context, width, 1 / shape()[1], colour),
  });
  key.canvas.removeAttribute("tabindex");
  const time = createCanvas({
    host: ui.timelineHost, label: "Balance over time", signal, height: () => TIMELINE_HEIGHT, draw: timelinePainter(state, frame),
  });
  const refresh = () => {
    if (state.data === null) return;
    state.rows = cells(state.data, windowLoad(state));
    describe(ui, state, frame, heat.canvas);
    for (const surface of [heat, key, time]) surface.schedule();
    frame.refreshTable();
  };
  const goTo = (/** @type {number} */ index) => {
    state.index = index;
    refresh();
  };
  const player = createPlayer(ui.play, () => ({ index: state.index, count: state.data?.steps.length ?? 0 }), goTo, signal);
  wire(frame, ui, state, { heat, time, goTo, refresh, stop: player.stop });
  return {
    update(payload) {
      adopt(state, ui, payload);
      refresh();
    },
    redraw: () => [heat, key, time].forEach((surface) => surface.schedule()),
    table: () => tableOf(state),
    select: ({ step, layer, expert }) => {
      if (state.data === null) return;
      if (Number.isFinite(step)) state.index = nearest(state.data.steps, step);
      const row = state.data.layers.indexOf(layer);
      if (row >= 0 && expert >= 0 && expert < state.data.experts) state.cursor = { layer: row, expert };
      refresh();
    },
  };
}

/**
 * Takes new numbers and keeps what the reader chose; a reader at the newest step stays at the newest.
 * @param {State} state @param {ReturnType<typeof layout>} ui @param {import("./_frame.js").Payload} payload
 */
function adopt(state, ui, payload) {
  const { phases } = payload.header;
  const isSamePhase = phases.includes(state.phase);
  const isLatest = state.data === null || !isSamePhase || state.index === state.data.steps.length - 1;
  if (!isSamePhase) state.phase = phases[0];
  state.payload = payload;
  const step = state.data?.steps[state.index] ?? 0;
  state.data = readLoad(payload, state.phase, isSamePhase ? state.data : null);
  const last = state.data.steps.length - 1;
  // A run sent anew may be thinned otherwise: the reader stays at their step, not at its old place in the list.
  state.index = isLatest ? last : nearest(state.data.steps, step);
  const [layers, experts] = [state.data.layers.length, state.data.experts];
  if (state.cursor && (state.cursor.layer >= layers || state.cursor.expert >= experts)) state.cursor = null;
  setOptions(ui.phase.select, phases.map((/** @type {keyof typeof PHASES} */ phase) => [phase, PHASES[phase]]));
  ui.phase.select.value = state.phase;
  ui.phase.field.hidden = phases.length < 2;
  ui.scrub.input.max = String(last);
  ui.scrub.field.hidden = ui.play.hidden = ui.span.field.hidden = last === 0;
}

/** @param {ReturnType<typeof layout>} ui @param {State} state @param {Frame} frame @param {HTMLCanvasElement} canvas */
function describe(ui, state, frame, canvas) {
  const data = /** @type {LoadData} */ (state.data);
  const text = headline(data, state.rows, `${when(state)},`);
  frame.lead(text);
  canvas.setAttribute("aria-label", `Load of ${plural(data.experts, "expert")} in ${plural(data.layers.length, "layer")}. ${text} Arrow keys move between cells.`);
  ui.scrub.input.value = String(state.index);
  ui.scrub.output.textContent = grouped(data.steps[state.index]);
  ui.scrub.input.setAttribute("aria-valuetext", `step ${data.steps[state.index]}`);
  ui.readout.textContent = state.cursor === null ? "Point at a cell, or move with the arrow keys, to read it." : cellText(state, state.cursor);
  const found = findings(data, state.rows, 6);
  ui.list.replaceChildren(...found.map(({ mark, text: words }) => h("li", { "data-mark": mark }, words)));
}

/**
 * @param {Frame} frame @param {ReturnType<typeof layout>} ui @param {State} state
 * @param {{ heat: any, time: any, goTo: (index: number) => void, refresh: () => void, stop: () => void }} act
 */
function wire(frame, ui, state, { heat, time, goTo, refresh, stop }) {
  const { signal } = frame;
  const choose = () => {
    if (state.cursor === null || state.data === null) return;
    const { layer, expert } = state.cursor;
    frame.choose({ layer: state.data.layers[layer], expert, step: state.data.steps[state.index] });
  };
  ui.phase.select.addEventListener("change", () => {
    stop();
    state.phase = ui.phase.select.value;
    state.data = null;
    if (state.payload !== null) adopt(state, ui, state.payload);
    refresh();
  }, { signal });
  ui.span.select.addEventListener("change", () => {
    state.window = ui.span.select.value;
    refresh();
  }, { signal });
  ui.scrub.input.addEventListener("input", () => {
    stop();
    goTo(Number(ui.scrub.input.value));
  }, { signal });
  onPointer(heat.canvas, (place, isPress) => {
    if (place === null || state.data === null) return;
    const cell = cellAt(gridOf(heat.canvas.clientWidth, state.data.layers.length, state.data.experts), place);
    if (cell === null || (!isPress && cell.layer === state.cursor?.layer && cell.expert === state.cursor.expert)) return;
    moveCursor(state, ui, cell, heat);
    if (isPress) choose();
  }, signal);
  heat.canvas.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Enter") choose();
    const cell = keyTarget(event, state);
    if (cell === undefined) return;
    event.preventDefault();
    moveCursor(state, ui, cell, heat);
    frame.say(ui.readout.textContent ?? "");
  }, { signal });
  time.canvas.removeAttribute("tabindex");
  onPointer(time.canvas, (place, isPress) => {
    if (place === null || !isPress || state.data === null) return;
    stop();
    goTo(stepAt(state.data.steps, place.x, time.canvas.clientWidth));
    frame.choose({ step: state.data.steps[state.index] });
  }, signal);
}

/** @param {State} state @param {ReturnType<typeof layout>} ui @param {State["cursor"]} cell @param {any} heat */
function moveCursor(state, ui, cell, heat) {
  state.cursor = cell;
  ui.readout.textContent = cell === null ? "" : cellText(state, cell);
  heat.schedule();
}

/** @param {KeyboardEvent} event @param {State} state @returns {State["cursor"] | undefined} undefined: not our key */
function keyTarget(event, { data, cursor }) {
  if (data === null) return undefined;
  if (event.key === "Escape") return null;
  const { layer, expert } = cursor ?? { layer: 0, expert: -1 };
  const lastLayer = data.layers.length - 1;
  /** @type {Record<string, { layer: number, expert: number }>} */
  const moves = {
    ArrowLeft: { layer, expert: expert - 1 },
    ArrowRight: { layer, expert: expert + 1 },
    ArrowUp: { layer: layer - 1, expert },
    ArrowDown: { layer: layer + (cursor === null ? 0 : 1), expert },
    Home: { layer, expert: 0 },
    End: { layer, expert: data.experts - 1 },
    PageUp: { layer: 0, expert },
    PageDown: { layer: lastLayer, expert },
  };
  const target = moves[event.key];
  if (target === undefined) return undefined;
  const clamp = (/** @type {number} */ value, /** @type {number} */ last) => Math.max(0, Math.min(last, value));
  return { layer: clamp(target.layer, lastLayer), expert: clamp(target.expert, data.experts - 1) };
}

/** @param {State} state @returns {import("./_frame.js").Table} */
function tableOf(state) {
  const data = /** @type {LoadData} */ (state.data);
  const extras = Object.keys(data.extras);
  const rows = state.rows.map((row, layer) => [
    `layer ${data.layers[layer]}`,
    ...row.map(({ load }) => (Number.isFinite(load) ? (load * 100).toFixed(2) : "no data")),
    ...extras.map((name) => {
      const value = data.extras[name][state.index * data.layers.length + layer];
      return Number.isFinite(value) ? value.toPrecision(4) : "no data";
    }),
  ]);
  const caption = `${when(state)}: share of the layer's assignments that each expert got [%]${extras.length > 0 ? "; last columns: at this step" : ""}.`;
  const names = extras.map((name) => name.replaceAll("_", " "));
  return { caption, head: ["Layer", ...Array.from({ length: data.experts }, (_, e) => `expert ${e}`), ...names], rows };
}

export default defineView({
  name: "expert_load",
  title: "Which experts do the work?",
  style: ".moe-key { max-width: 460px; margin: 2px 0 10px; } .moe-timeline { margin-top: 16px; }",
  create,
});
