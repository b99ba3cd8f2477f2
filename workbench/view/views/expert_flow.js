// @ts-check
/** Which experts go together? Within a layer, and from one layer to the next. */
import { button, h, selectField, setOptions } from "./_dom.js";
import { defineView } from "./_frame.js";
import { drawDifferenceKey } from "./_chance_key.js";
import { createCanvas } from "./_canvas.js";
import { createMatrix } from "./_matrix.js";
import { percent } from "./_number.js";
import { DRAWN, createFlow } from "./_sankey.js";
import { ENOUGH, cellOf, finding, pairAt, pairWords, pairs, ratioText, readTogether, sizes, strongest } from "./_together.js";

/**
 * @typedef {import("./_frame.js").Frame} Frame
 * @typedef {import("./_together.js").TogetherData} TogetherData
 * @typedef {{ payload: import("./_frame.js").Payload | null, data: TogetherData | null, kind: string, layer: number, isNext: boolean }} State
 */

const LISTED = 8;

/** @param {Frame} frame */
function layout(frame) {
  const kind = selectField("Tokens of", []);
  const layer = selectField("Layer", []);
  const look = selectField("Look at", [["same", "experts of the same token"], ["next", "the next layer"]]);
  frame.toolbar.append(look.field, layer.field, kind.field);
  const flowTitle = h("p", { class: "moe-plot-title" });
  const flowHost = h("div", {});
  const flowPart = h("div", { class: "moe-flow-part" }, flowTitle, flowHost);
  const title = h("p", { class: "moe-plot-title" });
  const keyHost = h("div", { class: "moe-key" });
  const host = h("div", {});
  const listTitle = h("p", { class: "moe-plot-title" });
  const list = h("ul", { class: "moe-links" });
  const none = h("p", { class: "moe-quiet", hidden: true }, "None stands out from chance by two standard deviations or more.");
  const main = h("div", {}, title, keyHost, h("div", {}, host), h("ul", { class: "moe-keys" }, h("li", {}, `╱ fewer than ${ENOUGH} tokens expected: not judged`), h("li", {}, "empty: nothing there")));
  frame.body.append(flowPart, h("div", { class: "moe-split moe-together" }, main, h("div", {}, listTitle, list, none)));
  return { kind, layer, look, flowTitle, flowHost, flowPart, title, keyHost, host, listTitle, list, none };
}

/** @param {Frame} frame @returns {import("./_frame.js").Part} */
function create(frame) {
  const ui = layout(frame);
  /** @type {State} */
  const state = { payload: null, data: null, kind: "", layer: 0, isNext: false };
  const choose = (/** @type {number} */ row, /** @type {boolean} */ isThere = false) => {
    if (state.data !== null) frame.choose({ layer: state.data.kind.layers[state.layer + Number(isThere)], expert: row });
  };
  const matrix = createMatrix({ host: ui.host, frame, choose: ({ row }) => choose(row) });
  const flow = createFlow({ host: ui.flowHost, frame, choose: ({ side, index }) => choose(index, side === 1) });
  const key = createCanvas({ host: ui.keyHost, label: "Colour key: blue is less than chance, orange is more", signal: frame.signal, height: () => 36, draw: (context, width) => drawDifferenceKey(context, width, frame) });
  key.canvas.removeAttribute("tabindex");
  const refresh = () => {
    if (state.data === null) return;
    syncControls(ui, state);
    show(ui, state, frame, matrix, flow);
    key.schedule();
    frame.refreshTable();
  };
  wire(ui, state, frame, refresh);
  ui.list.addEventListener("click", (event) => {
    const pressed = event.target instanceof Element ? event.target.closest("button") : null;
    if (pressed === null) return;
    const [row, column] = [Number(pressed.dataset.row), Number(pressed.dataset.column)];
    matrix.moveTo({ row, column });
    choose(row);
  }, { signal: frame.signal });
  return {
    update(payload) {
      adopt(state, payload);
      refresh();
    },
    redraw: refresh,
    table: () => tableOf(state),
    select: ({ layer }) => {
      const place = state.data?.kind.layers.indexOf(layer) ?? -1;
      if (place < 0) return;
      state.layer = place;
      refresh();
    },
  };
}

/** @param {State} state @param {import("./_frame.js").Payload} payload keeps what the reader chose where it still exists */
function adopt(state, payload) {
  const keys = payload.header.kinds.map((/** @type {{ key: string }} */ { key }) => key);
  if (!keys.includes(state.kind)) state.kind = keys[0];
  state.payload = payload;
  state.data = readTogether(payload, state.kind);
  state.layer = Math.min(state.layer, state.data.kind.layers.length - 1);
  if (state.data.kind.layers.length < 2) state.isNext = false;
}

/** @param {ReturnType<typeof layout>} ui @param {State} state @param {Frame} frame @param {() => void} refresh */
function wire(ui, state, frame, refresh) {
  const on = (/** @type {HTMLSelectElement} */ select, /** @type {(value: string) => void} */ take) =>
    select.addEventListener("change", () => {
      take(select.value);
      refresh();
    }, { signal: frame.signal });
  on(ui.kind.select, (value) => {
    state.kind = value;
    if (state.payload !== null) adopt(state, state.payload);
  });
  on(ui.layer.select, (value) => (state.layer = Number(value)));
  on(ui.look.select, (value) => (state.isNext = value === "next"));
}

/** @param {ReturnType<typeof layout>} ui @param {State} state */
function syncControls(ui, state) {
  const data = /** @type {TogetherData} */ (state.data);
  const { kinds } = /** @type {import("./_frame.js").Payload} */ (state.payload).header;
  const { layers } = data.kind;
  if (state.isNext) state.layer = Math.min(state.layer, layers.length - 2);
  const shown = state.isNext ? layers.slice(0, -1) : layers;
  setOptions(ui.kind.select, kinds.map((/** @type {{ key: string, name: string }} */ { key, name }) => [key, name]));
  setOptions(ui.layer.select, shown.map((layer, i) => [String(i), state.isNext ? `${layer} → ${layers[i + 1]}` : `layer ${layer}`]));
  ui.kind.select.value = state.kind;
  ui.layer.select.value = String(state.layer);
  ui.look.select.value = state.isNext ? "next" : "same";
  ui.kind.field.hidden = kinds.length < 2;
  ui.look.field.hidden = layers.length < 2;
}

/**
 * @param {ReturnType<typeof layout>} ui @param {State} state @param {Frame} frame
 * @param {import("./_matrix.js").Matrix} matrix @param {import("./_sankey.js").Flow} flow
 */
function show(ui, state, frame, matrix, flow) {
  const data = /** @type {TogetherData} */ (state.data);
  const { isNext, layer } = state;
  const [rows, columns] = sizes(data, isNext, layer);
  const here = data.kind.layers[layer];
  const text = finding(data, isNext, layer);
  frame.lead(text);
  ui.title.replaceChildren(isNext ? "Against chance " : `Experts of layer ${here} that serve the same token `, h("small", {}, "[number in a cell: times what chance would give]"));
  matrix.show({
    rows: names(rows), columns: names(columns),
    rowTitle: isNext ? `expert of layer ${here}` : "expert",
    columnTitle: isNext ? `expert of layer ${data.kind.layers[layer + 1]}` : `other expert of layer ${here}`,
    cells: names(rows).map((_, row) => names(columns).map((_, column) => cellOf(pairAt(data, isNext, layer, row, column), frame.isDark()))),
    words: (row, column) => pairWords(data, isNext, layer, pairAt(data, isNext, layer, row, column)),
    label: `Pairs of experts against chance. ${text}`,
  });
  ui.flowPart.hidden = !isNext;
  if (isNext) flow.show(flowData(data, layer, text));
  const links = pairs(data, true, isNext ? layer : 0).filter(({ tokens }) => tokens > 0).length;
  ui.flowTitle.replaceChildren("Where the tokens of each expert go next ", h("small", {}, `[as wide as there are tokens${isNext && links > DRAWN ? `; the ${DRAWN} widest of ${links} ribbons are drawn` : ""}]`));
  const found = strongest(pairs(data, isNext, layer)).slice(0, LISTED);
  ui.listTitle.textContent = isNext ? "Strongest links" : "Pairs that go together most";
  ui.none.hidden = found.length > 0;
  ui.list.replaceChildren(...found.map((pair) => {
    const press = button(isNext ? `${pair.row} → ${pair.column}` : `${pair.row} and ${pair.column}`, { "data-row": String(pair.row), "data-column": String(pair.column) });
    return h("li", {}, press, h("span", {}, `${ratioText(pair.ratio)} chance, ${isNext ? `${percent(pair.share)} of its tokens` : `${percent(pair.share)} of the tokens`}`));
  }));
}

/** @param {number} count @returns {string[]} */
function names(count) {
  return Array.from({ length: count }, (_, i) => String(i));
}

/** @param {TogetherData} data @param {number} layer @param {string} text @returns {import("./_sankey.js").FlowData} */
function flowData(data, layer, text) {
  const [rows, columns] = sizes(data, true, layer);
  const all = pairs(data, true, layer).filter(({ tokens }) => tokens > 0);
  const { layers } = data.kind;
  const words = (/** @type {import("./_sankey.js").Focus} */ { side, index, other }) => {
    if (other !== undefined) return pairWords(data, true, layer, pairAt(data, true, layer, index, other));
    const own = all.filter(({ row, column }) => (side === 0 ? row : column) === index).sort((a, b) => b.tokens - a.tokens);
    const total = own.reduce((sum, { tokens }) => sum + tokens, 0);
    const who = `Expert ${index} of layer ${layers[layer + side]}`;
    if (own.length === 0) return `${who}: no tokens ${side === 0 ? "leave" : "reach"} it.`;
    const parts = own.slice(0, 4).map(({ row, column, tokens }) => `expert ${side === 0 ? column : row} (${percent(tokens / total)})`);
    return `${who}: ${total.toFixed(0)} tokens, ${side === 0 ? "to" : "from"} ${parts.join(", ")}${own.length > 4 ? ` and ${own.length - 4} more` : ""}.`;
  };
  return {
    names: [names(rows), names(columns)],
    titles: [`experts of layer ${layers[layer]}`, `experts of layer ${layers[layer + 1]}`],
    links: all.map(({ row, column, tokens }) => ({ from: row, to: column, value: tokens })),
    words,
    label: `Flow of tokens from layer ${layers[layer]} to layer ${layers[layer + 1]}. ${text}`,
  };
}

/** @param {State} state @returns {import("./_frame.js").Table} */
function tableOf({ data, isNext, layer }) {
  const shown = /** @type {TogetherData} */ (data);
  const all = pairs(shown, isNext, layer).filter(({ tokens }) => tokens > 0).sort((a, b) => b.tokens - a.tokens).slice(0, 500);
  const rows = all.map(({ row, column, tokens, share, ratio, surprise }) => [
    `${row} ${isNext ? "→" : "and"} ${column}`, tokens.toFixed(1), (share * 100).toFixed(2), Number.isFinite(ratio) ? ratio.toFixed(3) : "no data", Number.isFinite(surprise) ? "yes" : "no",
  ]);
  const { layers, name } = shown.kind;
  const where = isNext ? `From layer ${layers[layer]} to layer ${layers[layer + 1]}` : `Layer ${layers[layer]}`;
  const caption = `${where}, ${name}: pairs of experts by tokens${all.length === 500 ? ", the 500 largest" : ""}. Share: of ${isNext ? "the first expert's tokens" : "the layer's tokens"}.`;
  return { caption, head: ["Experts", "Tokens", "Share [%]", "Times chance", "Enough to judge"], rows };
}

const STYLE = `
.moe-flow-part { margin-bottom: 18px; }
.moe-together { grid-template-columns: minmax(0, 680px) 260px; gap: 14px 28px; }
.moe-quiet { margin: 8px 0 0; font-size: 13px; color: var(--moe-muted); }
.moe-together .moe-key { max-width: 340px; margin: 6px 0 8px; }
.moe-links { display: grid; gap: 6px; margin: 8px 0 0; padding: 0; list-style: none; font-size: 13px; }
.moe-links li { display: flex; flex-wrap: wrap; gap: 4px 10px; align-items: center; }
.moe-links .moe-button { min-width: 76px; font-variant-numeric: tabular-nums; }
@container (max-width: 620px) { .moe-together { grid-template-columns: minmax(0, 1fr); } }
`;

export default defineView({ name: "expert_flow", title: "Which experts go together?", style: STYLE, create });
