// @ts-check
/** What would the shadow router do? Its choices beside those of the router that acts, on the same tokens. */
import { BARS_STYLE, createBars } from "./_bars.js";
import { h, selectField, setOptions } from "./_dom.js";
import { defineView } from "./_frame.js";
import { createMatrix } from "./_matrix.js";
import { grouped, percent, plural } from "./_number.js";
import { PAIR_STYLE, createPairs, differenceAt, differenceWords } from "./_pairs.js";
import { cividis } from "./_palette.js";
import { STRIP_STYLE } from "./_strip.js";
import { DETAIL_STYLE } from "./_token_detail.js";
import { visible } from "./_tokens.js";

/**
 * @typedef {import("./_frame.js").Frame} Frame
 * @typedef {{
 *   pieces: string[], layers: number[], experts: number, routers: string[], tokensOf: string, isProbe: boolean, at: number,
 *   sides: [import("./_pairs.js").Side, import("./_pairs.js").Side], agreement: Float32Array, steps: Int32Array,
 *   confusion: Float32Array, width: number, load: Float32Array,
 * }} ShadowData agreement: by step and layer; confusion: tokens by layer, expert of the active router and of the shadow; load: by layer, router, expert
 * @typedef {{ data: ShadowData | null, place: number }} State
 */

/** @param {import("./_payload.js").Payload} payload @returns {ShadowData} */
function read({ header, arrays }) {
  const [, tokens, layers, slots] = arrays.expert.shape;
  const size = tokens * layers * slots;
  const places = header.layers.map((/** @type {number} */ layer) => ({ name: `layer ${layer}`, layer }));
  const side = (/** @type {number} */ s) => ({
    places, slots, experts: header.experts,
    expert: arrays.expert.data.subarray(s * size, (s + 1) * size),
    weight: arrays.weight.data.subarray(s * size, (s + 1) * size),
    kept: arrays.kept.data.subarray(s * size, (s + 1) * size),
  });
  return {
    pieces: header.pieces, layers: header.layers, experts: header.experts, routers: header.routers, tokensOf: header.tokens_of,
    isProbe: header.is_probe, at: header.at, sides: [side(0), side(1)], agreement: arrays.agreement.data, steps: arrays.step.data,
    confusion: arrays.confusion.data, width: arrays.confusion.shape[1], load: arrays.load.data,
  };
}

/** @param {ShadowData} data @param {number} place @param {number} row @param {number} column */
function tokensAt({ confusion, width }, place, row, column) {
  return confusion[(place * width + row) * width + column];
}

/** @param {ShadowData} data @param {number} place @param {number} row @returns {number} tokens whose first expert the active router takes */
function rowTotal(data, place, row) {
  let total = 0;
  for (let column = 0; column < data.width; column += 1) total += tokensAt(data, place, row, column);
  return total;
}

/** @param {ShadowData} data @param {number} index of a recorded step @returns {number} mean of the layers that have it */
function meanAgreement({ agreement, layers }, index) {
  const known = Array.from(agreement.subarray(index * layers.length, (index + 1) * layers.length)).filter(Number.isFinite);
  return known.reduce((sum, value) => sum + value, 0) / known.length;
}

/** @param {ShadowData} data @returns {string} */
function sentence(data) {
  const last = data.steps.length - 1;
  const [now, first] = [meanAgreement(data, last), meanAgreement(data, 0)];
  const when = data.isProbe ? ` at step ${grouped(data.steps[last])}` : "";
  const change = data.isProbe && last > 0 ? ` At step ${grouped(data.steps[0])} it was ${percent(first)}.` : "";
  return `On ${plural(data.pieces.length, "token")} of ${data.tokensOf}${when} the shadow (${data.routers[1]}) and the active router (${data.routers[0]}) agree on ${percent(now)} of the assignments, mean of ${plural(data.layers.length, "layer")}.${change} The shadow changes nothing.`;
}

/** @param {Frame} frame */
function layout(frame) {
  const layer = selectField("Layer", []);
  frame.toolbar.append(layer.field);
  const title = h("p", { class: "moe-plot-title" });
  const host = h("div", {});
  const barsTitle = h("p", { class: "moe-plot-title" }, "Agreement, by layer ", h("small", {}, "[share of the assignments]"));
  const barsHost = h("div", {});
  const loadTitle = h("p", { class: "moe-plot-title moe-load-title" });
  const loads = h("ul", { class: "moe-loads", "data-shows-numbers": true, tabindex: 0, "aria-label": "Load of each expert under both routers" });
  const stripTitle = h("p", { class: "moe-plot-title" });
  const stripHost = h("div", {});
  frame.body.append(
    h("div", { class: "moe-split moe-shadow-top" }, h("div", {}, title, h("div", {}, host)), h("div", {}, barsTitle, barsHost, loadTitle, loads)),
    h("div", { class: "moe-shadow-strip" }, stripTitle, stripHost),
  );
  return { layer, title, host, barsHost, loadTitle, loads, stripTitle, stripHost };
}

/** @param {Frame} frame @returns {import("./_frame.js").Part} */
function create(frame) {
  const ui = layout(frame);
  /** @type {State} */
  const state = { data: null, place: 0 };
  const goTo = (/** @type {number} */ place) => {
    state.place = place;
    refresh();
  };
  const layerOf = () => state.data?.layers[state.place] ?? 0;
  const matrix = createMatrix({ host: ui.host, frame, choose: ({ row }) => frame.choose({ layer: layerOf(), expert: row }) });
  const bars = createBars({ host: ui.barsHost, signal: frame.signal, onPick: goTo });
  const pairs = createPairs({
    host: ui.stripHost, frame,
    onPick: () => frame.choose({ layer: layerOf(), step: state.data?.at ?? 0 }),
  });
  const refresh = () => {
    if (state.data === null) return;
    show(ui, state.data, state.place, { matrix, bars, pairs, frame });
    frame.refreshTable();
  };
  ui.layer.select.addEventListener("change", () => goTo(Number(ui.layer.select.value)), { signal: frame.signal });
  return {
    update(payload) {
      state.data = read(payload);
      state.place = Math.min(state.place, state.data.layers.length - 1);
      refresh();
    },
    redraw: refresh,
    table: () => tableOf(/** @type {ShadowData} */ (state.data), state.place),
    select: ({ layer }) => {
      const place = state.data?.layers.indexOf(layer) ?? -1;
      if (place >= 0) goTo(place);
    },
  };
}

/**
 * @param {ReturnType<typeof layout>} ui @param {ShadowData} data @param {number} place
 * @param {{ matrix: import("./_matrix.js").Matrix, bars: import("./_bars.js").Bars, pairs: import("./_pairs.js").Pairs, frame: Frame }} parts
 */
function show(ui, data, place, { matrix, bars, pairs, frame }) {
  const [active, shadow] = data.routers;
  const layer = data.layers[place];
  const last = data.steps.length - 1;
  setOptions(ui.layer.select, data.layers.map((name, i) => [String(i), `layer ${name}`]));
  ui.layer.select.value = String(place);
  frame.lead(sentence(data));
  bars.show(data.layers.map((name, i) => {
    const value = data.agreement[last * data.layers.length + i];
    return { name: `layer ${name}`, value, text: percent(value), isChosen: i === place };
  }));
  ui.title.replaceChildren(`Where ${active} takes one expert, ${shadow} takes… layer ${layer} `, h("small", {}, "[tokens, first choices; yellow: all of the row. The diagonal is agreement.]"));
  const names = Array.from({ length: data.width }, (_, i) => String(i));
  matrix.show({
    rows: names, columns: names, rowTitle: `active: ${active}`, columnTitle: `shadow: ${shadow}`,
    cells: names.map((_, row) => {
      const total = rowTotal(data, place, row);
      return names.map((__, column) => {
        const tokens = tokensAt(data, place, row, column);
        return { fill: tokens > 0 ? cividis(tokens / total) : null, text: tokens > 0 ? String(tokens) : "" };
      });
    }),
    words: (row, column) => cellWords(data, place, row, column),
    label: `Tokens by the expert of the active router and of the shadow, layer ${layer}.`,
  });
  showLoads(ui, data, place);
  ui.stripTitle.replaceChildren(`The same text, layer ${layer} `, h("small", {}, `[${differenceWords(data.sides, data.pieces.length, place)}]`));
  pairs.show({ pieces: data.pieces, sides: data.sides, words: [`active (${active})`, `shadow (${shadow})`], short: ["active", "shadow"] }, place);
}

/** @param {ShadowData} data @param {number} place @param {number} row @param {number} column @returns {string} */
function cellWords(data, place, row, column) {
  const [tokens, total] = [tokensAt(data, place, row, column), rowTotal(data, place, row)];
  if (total === 0) return `The active router takes expert ${row} for no token here.`;
  const what = row === column ? "the shadow takes it too" : `the shadow takes expert ${column}`;
  return `Of the ${plural(total, "token")} that expert ${row} gets, ${what} for ${tokens} (${percent(tokens / total)}).`;
}

/** @param {ReturnType<typeof layout>} ui @param {ShadowData} data @param {number} place */
function showLoads(ui, data, place) {
  const at = (/** @type {number} */ router, /** @type {number} */ expert) => data.load[(place * 2 + router) * data.width + expert];
  const largest = Math.max(1e-9, ...[0, 1].flatMap((router) => Array.from({ length: data.width }, (_, e) => at(router, e)).filter(Number.isFinite)));
  ui.loadTitle.replaceChildren("Load of the experts ", h("small", {}, `[full: ${data.routers[0]}, outlined: ${data.routers[1]}]`));
  ui.loads.replaceChildren(...Array.from({ length: data.width }, (_, expert) => {
    const tracks = [0, 1].map((router) => {
      const bar = h("span", { class: router === 0 ? "moe-load-bar" : "moe-load-bar moe-load-shadow" });
      bar.style.setProperty("--share", String(Number.isFinite(at(router, expert)) ? at(router, expert) / largest : 0));
      return bar;
    });
    const text = [0, 1].map((router) => percent(at(router, expert))).join(" | ");
    return h("li", {}, h("span", {}, String(expert)), h("span", { class: "moe-load-track" }, ...tracks), h("span", { class: "moe-bar-text" }, text));
  }));
}

/** @param {ShadowData} data @param {number} place @returns {import("./_frame.js").Table} */
function tableOf(data, place) {
  const { slots } = data.sides[0];
  const chosen = (/** @type {import("./_pairs.js").Side} */ side, /** @type {number} */ token) => {
    const from = (token * data.layers.length + place) * slots;
    return Array.from(side.expert.subarray(from, from + slots)).filter((one) => one >= 0).join(", ") || "–";
  };
  const rows = data.pieces.map((piece, token) => [token, visible(piece), chosen(data.sides[0], token), chosen(data.sides[1], token), { first: "first expert", lesser: "lesser expert", fewer: "fewer of the same", "": "no" }[differenceAt(data.sides, token, place)]]);
  const share = data.agreement[(data.steps.length - 1) * data.layers.length + place];
  return { caption: `Layer ${data.layers[place]}: experts of each token; agreement ${percent(share)}.`, head: ["Token", "Text", `Active: ${data.routers[0]}`, `Shadow: ${data.routers[1]}`, "Differ"], rows };
}

const STYLE = `
.moe-shadow-top { grid-template-columns: minmax(0, 640px) minmax(0, 300px); gap: 14px 28px; }
.moe-shadow-strip { margin: 18px 0 0; }
.moe-load-title { margin-top: 16px; }
.moe-loads { margin: 6px 0 0; padding: 0 6px; list-style: none; max-height: 400px; overflow: auto; font-size: 12.5px; }
.moe-loads li { display: grid; grid-template-columns: 26px minmax(40px, 1fr) 104px; gap: 8px; align-items: center; min-height: 24px; }
.moe-load-track { display: grid; gap: 2px; }
.moe-load-bar { display: block; height: 7px; width: calc(100% * var(--share)); background: var(--moe-mark); }
.moe-load-shadow { background: none; box-shadow: inset 0 0 0 1.5px var(--moe-text); }
@container (max-width: 680px) { .moe-shadow-top { grid-template-columns: minmax(0, 1fr); } }
@media (forced-colors: active) { .moe-load-bar { background: CanvasText; } .moe-load-shadow { background: Canvas; border: 1px solid CanvasText; } }
`;

export default defineView({ name: "shadow_router", title: "What would the shadow router do?", style: STRIP_STYLE + DETAIL_STYLE + PAIR_STYLE + BARS_STYLE + STYLE, create });
