// @ts-check
/** Is it learning? Training loss, held-out loss per domain, and every change made on the way. */
import { drawAxes, drawCursor, drawEvents, drawLine, rangeOf } from "./_axes.js";
import { createCanvas, onPointer } from "./_canvas.js";
import { factsAt, lastRow, read, sentence, smoothed, tableOf } from "./_curves.js";
import { button, h, sliderField } from "./_dom.js";
import { defineView } from "./_frame.js";
import { createLegend, drawDomain } from "./_domains.js";
import { grouped, logTicks, nearest, plural, ticks } from "./_number.js";

/**
 * @typedef {import("./_axes.js").Area} Area
 * @typedef {import("./_axes.js").Range} Range
 * @typedef {import("./_frame.js").Frame} Frame
 * @typedef {import("./_curves.js").Data} Data
 * @typedef {{ data: Data | null, cursor: number, isLog: boolean, smoothing: number, domain: number }} State
 */

const FLAGS = 28;

/** @param {number} width @param {number} height @param {boolean} hasTitle @returns {Area} */
function plotArea(width, height, hasTitle) {
  return { left: 52, top: FLAGS, width: Math.max(10, width - 62), height: height - FLAGS - (hasTitle ? 46 : 28) };
}

/** @param {Data} data @returns {Range} */
function stepRange({ steps, evalSteps }) {
  const ends = [steps, evalSteps].filter((list) => list.length > 0);
  if (ends.length === 0) return { low: 0, high: 1, isLog: false };
  const low = Math.min(...ends.map((list) => list[0]));
  const high = Math.max(...ends.map((list) => list[list.length - 1]));
  return { low, high: Math.max(high, low + 1), isLog: false };
}

/** @param {State} state @param {Frame} frame */
function trainPainter(state, frame) {
  return (/** @type {CanvasRenderingContext2D} */ context, /** @type {number} */ width, /** @type {number} */ height) => {
    const { data } = state;
    if (data === null) return;
    const area = plotArea(width, height, data.evalSteps.length === 0);
    const x = stepRange(data);
    const y = rangeOf(/** @type {Float64Array} */ (data.series.loss), state.isLog);
    paintFrame(context, area, x, y, data.evalSteps.length === 0, frame.colour);
    context.lineJoin = "round";
    context.strokeStyle = frame.colour("empty");
    context.lineWidth = 1;
    drawLine(context, area, { x, y }, data.steps, (i) => data.series.loss[i]);
    context.strokeStyle = frame.colour("mark");
    context.lineWidth = 2.25;
    drawLine(context, area, { x, y }, data.steps, (i) => data.smooth[i]);
    drawEvents(context, area, x, data.events, frame.colour);
    if (state.cursor >= 0) drawCursor(context, area, x, data.steps[state.cursor], frame.colour);
  };
}

/** @param {State} state @param {Frame} frame */
function evalPainter(state, frame) {
  return (/** @type {CanvasRenderingContext2D} */ context, /** @type {number} */ width, /** @type {number} */ height) => {
    const { data } = state;
    if (data === null || data.evalSteps.length === 0) return;
    const area = plotArea(width, height, true);
    const x = stepRange(data);
    const y = rangeOf(/** @type {Float64Array} */ (data.evalLoss), state.isLog);
    paintFrame(context, area, x, y, true, frame.colour);
    drawEvents(context, area, x, data.events.map((event) => ({ ...event, short: "" })), frame.colour);
    const order = data.domains.map((_, d) => d).sort((a, b) => Number(a === state.domain) - Number(b === state.domain));
    for (const d of order) {
      const isFaded = state.domain >= 0 && d !== state.domain;
      const value = (/** @type {number} */ row) => data.evalLoss[row * data.domains.length + d];
      drawDomain(context, area, { x, y }, data.evalSteps, value, { domain: d, isFaded }, frame);
    }
    if (state.cursor >= 0) drawCursor(context, area, x, data.steps[state.cursor], frame.colour);
  };
}

/**
 * @param {CanvasRenderingContext2D} context @param {Area} area @param {Range} x @param {Range} y @param {boolean} hasTitle
 * @param {(name: string) => string} colour
 */
function paintFrame(context, area, x, y, hasTitle, colour) {
  const marks = y.isLog ? logTicks(y.low, y.high) : ticks(y.low, y.high, 5);
  const across = ticks(x.low, x.high, Math.max(2, Math.floor(area.width / 90))).filter(Number.isInteger);
  const title = hasTitle ? "training step" : "";
  drawAxes(context, area, { range: y, ticks: marks.length > 0 ? marks : [y.low, y.high] }, { range: x, ticks: across, title }, colour);
}

/** @param {Frame} frame */
function layout(frame) {
  const smooth = sliderField("Smoothing", { min: 0, max: 0.98, step: 0.02, value: 0.6 });
  const log = button("Log scale", { "aria-pressed": "false" });
  frame.toolbar.append(smooth.field, log);
  const trainTitle = h("p", { class: "moe-plot-title" });
  const evalTitle = h("p", { class: "moe-plot-title" });
  const trainHost = h("div", {});
  const evalHost = h("div", {});
  const facts = h("dl", { class: "moe-facts" });
  const legend = h("div", {});
  const evalSplit = h("div", { class: "moe-split" }, evalTitle, evalHost, legend);
  const events = h("ol", { class: "moe-events", "aria-label": "Changes made during training" });
  frame.body.append(h("div", { class: "moe-split" }, trainTitle, trainHost, facts), evalSplit, events);
  return { smooth, log, trainTitle, evalTitle, trainHost, evalHost, facts, legend, evalSplit, events, shown: { events: "" } };
}

/** @param {Frame} frame @returns {import("./_frame.js").Part} */
function create(frame) {
  const ui = layout(frame);
  /** @type {State} */
  const state = { data: null, cursor: -1, isLog: false, smoothing: 0.6, domain: -1 };
  const height = (/** @type {number} */ width) => (width < 420 ? 220 : 250);
  const common = { height, signal: frame.signal };
  const train = createCanvas({ ...common, host: ui.trainHost, label: "Training loss over steps", draw: trainPainter(state, frame) });
  const held = createCanvas({ ...common, host: ui.evalHost, label: "Held-out loss per domain over steps", draw: evalPainter(state, frame) });
  const legend = createLegend(ui.legend, frame, (domain) => {
    state.domain = domain;
    held.schedule();
  });
  const refresh = () => {
    train.schedule();
    held.schedule();
    if (state.data === null) return;
    const index = state.cursor >= 0 ? state.cursor : state.data.steps.length - 1;
    if (index >= 0) ui.facts.replaceChildren(...factsAt(state.data, index).flatMap(([k, v]) => [h("dt", {}, k), h("dd", {}, v)]));
    const row = nearest(state.data.evalSteps, state.cursor >= 0 ? state.data.steps[index] : Infinity);
    legend(state.data, row < 0 || state.cursor >= 0 ? row : lastRow(state.data));
  };
  const moveTo = (/** @type {number} */ index) => {
    state.cursor = index;
    refresh();
  };
  wire(frame, ui, state, [train.canvas, held.canvas], moveTo, refresh);
  return {
    update(payload) {
      const step = state.cursor >= 0 ? (state.data?.steps[state.cursor] ?? 0) : -1;
      state.data = read(payload, state.smoothing);
      // A run sent anew may be thinned otherwise: the reader stays at their step, not at its old place in the list.
      state.cursor = step >= 0 ? nearest(state.data.steps, step) : -1;
      describe(ui, state.data, frame, train.canvas, (to) => moveTo(nearest(/** @type {Data} */ (state.data).steps, to)));
      refresh();
    },
    redraw: refresh,
    table: () => tableOf(/** @type {Data} */ (state.data)),
    select: ({ step }) => {
      if (state.data !== null && Number.isFinite(step)) moveTo(nearest(state.data.steps, step));
    },
  };
}

/**
 * @param {ReturnType<typeof layout>} ui @param {Data} data @param {Frame} frame @param {HTMLCanvasElement} canvas
 * @param {(step: number) => void} goTo
 */
function describe(ui, data, frame, canvas, goTo) {
  const text = sentence(data);
  frame.lead(text);
  canvas.setAttribute("aria-label", `Training loss over ${plural(data.steps.length, "recorded step")}. ${text}`);
  ui.trainTitle.replaceChildren("Training loss ", h("small", {}, `[${data.units.loss}] — each step pale, smoothed in colour`));
  ui.evalTitle.replaceChildren("Held-out loss by domain ", h("small", {}, `[${data.units.eval_loss}] — text the model never trains on`));
  ui.evalSplit.hidden = data.evalSteps.length === 0;
  ui.events.hidden = data.events.length === 0;
  const key = JSON.stringify(data.events);
  if (ui.shown.events === key) return;
  ui.shown.events = key;
  ui.events.replaceChildren(
    ...data.events.map(({ step, label, detail }, i) => {
      const jump = button(`Step ${grouped(step)}: ${label}`);
      jump.prepend(h("b", {}, String(i + 1)));
      jump.addEventListener("click", () => goTo(step));
      return h("li", {}, jump, h("span", {}, detail));
    }),
  );
}

/**
 * @param {Frame} frame @param {ReturnType<typeof layout>} ui @param {State} state @param {HTMLCanvasElement[]} canvases
 * @param {(index: number) => void} moveTo @param {() => void} refresh
 */
function wire(frame, ui, state, canvases, moveTo, refresh) {
  const { signal } = frame;
  const smooth = () => {
    state.smoothing = Number(ui.smooth.input.value);
    ui.smooth.output.textContent = state.smoothing.toFixed(2);
    if (state.data !== null) state.data.smooth = smoothed(state.data.series.loss, state.smoothing);
    refresh();
  };
  ui.smooth.input.addEventListener("input", smooth, { signal });
  ui.smooth.output.textContent = state.smoothing.toFixed(2);
  ui.log.addEventListener("click", () => {
    state.isLog = !state.isLog;
    ui.log.setAttribute("aria-pressed", String(state.isLog));
    refresh();
  }, { signal });
  for (const canvas of canvases) {
    onPointer(canvas, (place, isPress) => hover(frame, state, canvas, place, isPress, moveTo), signal);
    canvas.addEventListener("keydown", (event) => onKey(event, frame, state, moveTo), { signal });
  }
}

/**
 * @param {Frame} frame @param {State} state @param {HTMLCanvasElement} canvas @param {{ x: number, y: number } | null} place
 * @param {boolean} isPress @param {(index: number) => void} moveTo
 */
function hover(frame, state, canvas, place, isPress, moveTo) {
  if (state.data === null || state.data.steps.length === 0) return;
  if (place === null) return moveTo(-1);
  const area = plotArea(canvas.clientWidth, canvas.clientHeight, true);
  const x = stepRange(state.data);
  const index = nearest(state.data.steps, x.low + ((place.x - area.left) / area.width) * (x.high - x.low));
  moveTo(index);
  if (isPress) frame.choose({ step: state.data.steps[index] });
}

/** @param {KeyboardEvent} event @param {Frame} frame @param {State} state @param {(index: number) => void} moveTo */
function onKey(event, frame, state, moveTo) {
  if (state.data === null || state.data.steps.length === 0) return;
  const last = state.data.steps.length - 1;
  const page = Math.max(1, Math.round(last / 10));
  const now = state.cursor >= 0 ? state.cursor : last;
  /** @type {Record<string, number>} */
  const moves = { ArrowLeft: now - 1, ArrowRight: now + 1, PageUp: now - page, PageDown: now + page, Home: 0, End: last, Escape: -1 };
  if (event.key === "Enter") frame.choose({ step: state.data.steps[now] });
  if (!(event.key in moves)) return;
  event.preventDefault();
  moveTo(event.key === "Escape" ? -1 : Math.max(0, Math.min(last, moves[event.key])));
  frame.say(factsAt(state.data, Math.max(0, state.cursor)).slice(0, 3).map((fact) => fact.join(" ")).join(", "));
}

export default defineView({ name: "loss_curves", title: "Is it learning?", create });
