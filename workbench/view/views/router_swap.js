// @ts-check
/** What did the swap change? The same tokens under the old router and the new one. */
import { createAck } from "./_ack.js";
import { button, h, selectField, setOptions } from "./_dom.js";
import { defineView } from "./_frame.js";
import { grouped, listed, number, percent, plural } from "./_number.js";
import { PAIR_STYLE, createPairs, differenceWords } from "./_pairs.js";
import { copyButton, pythonLine } from "./_python.js";
import { createFlow } from "./_sankey.js";
import { BARS_STYLE, createBars } from "./_bars.js";
import { STRIP_STYLE } from "./_strip.js";
import { DETAIL_STYLE } from "./_token_detail.js";
import { visible } from "./_tokens.js";

/**
 * @typedef {import("./_frame.js").Frame} Frame
 * @typedef {{
 *   pieces: string[], before: string, after: string, step: number, unit: string, sides: [import("./_pairs.js").Side, import("./_pairs.js").Side],
 *   tokenMoved: Float32Array, moved: Float64Array, flow: { data: Float32Array, shape: number[] }, layers: number,
 *   lossBefore: number, lossAfter: number, stall: number,
 * }} SwapData moved: by layer; flow: by layer, expert before and after, the last of each being none
 * @typedef {{ data: SwapData | null, layer: number }} State
 */

/** @param {import("./_frame.js").Payload} payload @returns {SwapData} */
function read({ header, arrays }) {
  const [, tokens, layers, slots] = arrays.expert.shape;
  const size = tokens * layers * slots;
  const [experts, others] = [arrays.flow.shape[1] - 1, arrays.flow.shape[2] - 1];
  const places = Array.from({ length: layers }, (_, layer) => ({ name: `layer ${layer}`, layer }));
  const side = (/** @type {number} */ s) => ({
    places, slots, experts: Math.max(experts, others, 1),
    expert: arrays.expert.data.subarray(s * size, (s + 1) * size),
    weight: arrays.share.data.subarray(s * size, (s + 1) * size),
    kept: new Uint8Array(size).fill(1),
  });
  const [lossBefore, lossAfter, stall] = arrays.numbers.data;
  return {
    pieces: header.pieces, before: header.before, after: header.after, step: header.step, unit: header.loss_unit, sides: [side(0), side(1)],
    tokenMoved: arrays.token_moved.data, moved: arrays.moved.data, flow: arrays.flow, layers, lossBefore, lossAfter, stall,
  };
}

/** @param {SwapData} data @returns {string} */
function lossWords({ lossBefore, lossAfter, unit }) {
  const change = lossAfter - lossBefore;
  if (!Number.isFinite(change)) return "";
  const verb = Math.abs(change) < 5e-4 ? "stayed at" : change > 0 ? "rose from" : "fell from";
  const values = verb === "stayed at" ? number(lossAfter, 4) : `${number(lossBefore, 4)} to ${number(lossAfter, 4)}`;
  return ` The loss on them ${verb} ${values} ${unit} (${signed(change)}).`;
}

/** @param {number} value @returns {string} */
function signed(value) {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;
}

/** @param {SwapData} data @returns {string} */
function sentence(data) {
  const share = data.moved.reduce((sum, value) => sum + value, 0) / data.layers;
  return `At step ${grouped(data.step)} ${data.after} took over from ${data.before}. Of the same ${plural(data.pieces.length, "token")}, ` +
    `${percent(share)} of the assignments went to another expert (mean of ${plural(data.layers, "layer")}).${lossWords(data)}`;
}

/** @param {Frame} frame */
function layout(frame) {
  const layer = selectField("Layer", []);
  const undo = button("Undo");
  const rewind = button("Rewind");
  const acts = h("div", { class: "moe-row", hidden: true }, undo, rewind);
  frame.toolbar.append(layer.field, acts);
  const facts = h("dl", { class: "moe-facts" });
  const barsTitle = h("p", { class: "moe-plot-title" }, "Moved, by layer ", h("small", {}, "[share of the assignments]"));
  const barsHost = h("div", {});
  const flowTitle = h("p", { class: "moe-plot-title" });
  const flowHost = h("div", {});
  const stripTitle = h("p", { class: "moe-plot-title" });
  const stripHost = h("div", {});
  const copyHost = h("div", { class: "moe-row" });
  frame.body.append(
    h("div", { class: "moe-split moe-swap-top" }, h("div", {}, flowTitle, flowHost), h("div", {}, barsTitle, barsHost, facts)),
    h("div", { class: "moe-swap-strip" }, stripTitle, stripHost),
    copyHost,
  );
  return { layer, undo, rewind, acts, facts, barsHost, flowTitle, flowHost, stripTitle, stripHost, copyHost };
}

/** @param {Frame} frame @returns {import("./_frame.js").Part} */
function create(frame) {
  const ui = layout(frame);
  /** @type {State} */
  const state = { data: null, layer: 0 };
  const ack = createAck(frame);
  ui.acts.append(ack.element);
  const goTo = (/** @type {number} */ layer) => {
    state.layer = layer;
    refresh();
  };
  const bars = createBars({ host: ui.barsHost, signal: frame.signal, onPick: goTo });
  const flow = createFlow({ host: ui.flowHost, frame, choose: ({ index }) => frame.choose({ layer: state.layer, expert: index }) });
  const pairs = createPairs({
    host: ui.stripHost, frame,
    onPick: () => frame.choose({ layer: state.layer, step: state.data?.step ?? 0 }),
  });
  const refresh = () => {
    if (state.data === null) return;
    show(ui, state.data, state.layer, { bars, flow, pairs, frame });
    frame.refreshTable();
  };
  ui.layer.select.addEventListener("change", () => goTo(Number(ui.layer.select.value)), { signal: frame.signal });
  ui.undo.addEventListener("click", () => ack.send("undo", {}, "undo"), { signal: frame.signal });
  ui.rewind.addEventListener("click", () => ack.send("rewind", {}, "rewind"), { signal: frame.signal });
  ui.copyHost.append(copyButton(() => pythonLine("swap_router", { name: state.data?.after ?? "", args: {} }), frame.signal).element);
  const sync = () => syncActs(ui, frame);
  return {
    update(payload) {
      state.data = read(payload);
      state.layer = Math.min(state.layer, Math.max(0, state.data.layers - 1));
      refresh();
    },
    redraw: refresh,
    table: () => tableOf(/** @type {SwapData} */ (state.data), state.layer),
    select: ({ layer }) => {
      if (state.data !== null && layer >= 0 && layer < state.data.layers) goTo(layer);
    },
    run: sync,
    acks: ack.hear,
  };
}

/** @param {ReturnType<typeof layout>} ui @param {Frame} frame a run says itself what undo would take back */
function syncActs(ui, frame) {
  const state = frame.run() ?? {};
  ui.acts.hidden = !frame.isLive();
  ui.undo.disabled = !state.can_undo;
  ui.rewind.disabled = !state.can_rewind;
  ui.undo.title = state.can_undo ? `Take back: ${state.can_undo}` : "There is nothing to take back.";
  ui.rewind.title = state.can_rewind ? "Back to the moment before the last swap; what was trained since is lost." : "There is no moment to go back to.";
}

/**
 * @param {ReturnType<typeof layout>} ui @param {SwapData} data @param {number} layer
 * @param {{ bars: import("./_bars.js").Bars, flow: import("./_sankey.js").Flow, pairs: import("./_pairs.js").Pairs, frame: Frame }} parts
 */
function show(ui, data, layer, { bars, flow, pairs, frame }) {
  const names = Array.from({ length: data.layers }, (_, i) => [String(i), `layer ${i}`]);
  setOptions(ui.layer.select, /** @type {[string, string][]} */ (names));
  ui.layer.select.value = String(layer);
  frame.lead(sentence(data));
  bars.show(Array.from(data.moved, (value, i) => ({ name: `layer ${i}`, value, text: percent(value), isChosen: i === layer })));
  const facts = [
    [`Loss before [${data.unit}]`, number(data.lossBefore, 4)],
    [`Loss after [${data.unit}]`, number(data.lossAfter, 4)],
    ["Change", Number.isFinite(data.lossAfter - data.lossBefore) ? signed(data.lossAfter - data.lossBefore) : "no data"],
    ["Training stood still", Number.isFinite(data.stall) ? `${(data.stall * 1000).toFixed(0)} ms` : "no data"],
  ];
  ui.facts.replaceChildren(...facts.flatMap(([key, value]) => [h("dt", {}, key), h("dd", {}, value)]));
  ui.flowTitle.replaceChildren(`From the experts of ${data.before} to those of ${data.after}, layer ${layer} `, h("small", {}, "[as wide as the combine weight; grey stays, blue moves]"));
  flow.show(flowData(data, layer));
  ui.stripTitle.replaceChildren(`The same text, layer ${layer} `, h("small", {}, `[${differenceWords(data.sides, data.pieces.length, layer)}]`));
  pairs.show({
    pieces: data.pieces, sides: data.sides, words: [`before (${data.before})`, `after (${data.after})`], short: ["before", "after"],
  }, layer);
}

/** @param {SwapData} data @param {number} layer @param {number} from @param {number} to @returns {number} share of the combine weight */
function flowAt({ flow }, layer, from, to) {
  const [, rows, columns] = flow.shape;
  return flow.data[(layer * rows + from) * columns + to];
}

/** @param {number} i @param {number} experts @returns {string} */
function expertName(i, experts) {
  return i < experts ? `expert ${i}` : "no expert";
}

/** @param {SwapData} data @param {number} layer @returns {import("./_sankey.js").FlowData} */
function flowData(data, layer) {
  const [rows, columns] = [data.flow.shape[1], data.flow.shape[2]];
  const at = (/** @type {number} */ from, /** @type {number} */ to) => flowAt(data, layer, from, to);
  // The column of tokens without an expert takes room only where there are some.
  const hasNone = [Array.from({ length: columns }, (_, to) => at(rows - 1, to)), Array.from({ length: rows }, (_, from) => at(from, columns - 1))].map((part) => part.some((value) => value > 1e-9));
  const counts = [rows - 1, columns - 1].map((count, side) => count + Number(hasNone[side]));
  const names = /** @type {[string[], string[]]} */ (counts.map((count, side) => Array.from({ length: count }, (_, i) => (i < [rows, columns][side] - 1 ? String(i) : "–"))));
  /** @type {import("./_sankey.js").Link[]} */
  const links = [];
  for (let from = 0; from < counts[0]; from += 1) {
    for (let to = 0; to < counts[1]; to += 1) if (at(from, to) > 1e-9) links.push({ from, to, value: at(from, to), isCalm: from === to && from < rows - 1 });
  }
  const words = (/** @type {import("./_sankey.js").Focus} */ { side, index, other }) => {
    const who = (/** @type {number} */ s, /** @type {number} */ i) => expertName(i, [rows, columns][s] - 1);
    if (other !== undefined) return `From ${who(0, index)} to ${who(1, other)}: ${percent(at(index, other))} of the layer's weight${index === other ? "; it stays" : ""}.`;
    const own = links.filter(({ from, to }) => (side === 0 ? from : to) === index).sort((a, b) => b.value - a.value);
    const total = own.reduce((sum, { value }) => sum + value, 0);
    if (own.length === 0) return `${who(side, index)}: nothing ${side === 0 ? "was there" : "arrives"}.`;
    const stays = own.filter(({ isCalm }) => isCalm).reduce((sum, { value }) => sum + value, 0);
    const moving = own.filter(({ isCalm }) => !isCalm).slice(0, 3).map(({ from, to, value }) => `${who(side === 0 ? 1 : 0, side === 0 ? to : from)} (${percent(value / total)})`);
    const rest = moving.length > 0 ? `; ${side === 0 ? "goes to" : "comes from"} ${listed(moving)}` : "";
    return `${who(side, index)} ${side === 0 ? "before" : "after"}: ${percent(total)} of the layer's weight, ${percent(stays / total)} of it stays${rest}.`;
  };
  return { names, titles: [`before: ${data.before}`, `after: ${data.after}`], links, words, label: `Flow from old expert to new expert in layer ${layer}. ${percent(data.moved[layer])} of the assignments moved.` };
}

/** @param {SwapData} data @param {number} layer @returns {import("./_frame.js").Table} */
function tableOf({ pieces, sides, tokenMoved, layers, before, after, moved }, layer) {
  const { slots } = sides[0];
  const chosen = (/** @type {import("./_pairs.js").Side} */ side, /** @type {number} */ token) => {
    const from = (token * layers + layer) * slots;
    const parts = Array.from({ length: slots }, (_, slot) => from + slot).filter((at) => side.expert[at] >= 0);
    return parts.length > 0 ? parts.map((at) => `${side.expert[at]} (${side.weight[at].toPrecision(3)})`).join(", ") : "–";
  };
  const rows = pieces.map((piece, token) => [token, visible(piece), chosen(sides[0], token), chosen(sides[1], token), percent(tokenMoved[token * layers + layer])]);
  return { caption: `Layer ${layer}: experts of each token before and after, share of its weight in brackets; ${percent(moved[layer])} of the assignments moved.`, head: ["Token", "Text", before || "before", after || "after", "Moved"], rows };
}

const STYLE = `
.moe-row { display: flex; flex-wrap: wrap; gap: 8px 10px; align-items: center; }
.moe-swap-top { grid-template-columns: minmax(0, 1fr) 290px; gap: 14px 28px; }
.moe-swap-strip { margin: 18px 0 12px; }
@container (max-width: 680px) { .moe-swap-top { grid-template-columns: minmax(0, 1fr); } }
`;

export default defineView({ name: "router_swap", title: "What did the swap change?", style: STRIP_STYLE + DETAIL_STYLE + PAIR_STYLE + BARS_STYLE + STYLE, create });
