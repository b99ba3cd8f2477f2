// @ts-check
/** Where does each token go? Text coloured by expert; a token opens its experts in every layer. */
import { button, h, selectField, setOptions, sliderField } from "./_dom.js";
import { defineView } from "./_frame.js";
import { showExperts } from "./_legend.js";
import { grouped, percent, plural } from "./_number.js";
import { createPlayer } from "./_player.js";
import { DETAIL_STYLE, showDetail, showHint } from "./_token_detail.js";
import { STRIP_STYLE, buildStrip, markChosen, neighbour, paintStrip } from "./_strip.js";
import { choiceAt, choicesOf, choicesSentence, colourRule, isSameText, looks, passageSentence, readTokens, tally, visible } from "./_tokens.js";

/**
 * @typedef {import("./_frame.js").Frame} Frame
 * @typedef {import("./_tokens.js").TokenData} TokenData
 * @typedef {{
 *   data: TokenData | null, kind: string, passage: number, place: number, slot: number, expert: number, token: number,
 *   tokens: HTMLElement[], built: string,
 * }} State passage: index among all; expert: singled out, or -1; token: absolute, or -1
 */

const KINDS = { generate: "prompt and generated text", probe: "probe text during training", eval: "held-out text", train: "training batches" };

/** @param {State} state @returns {number[]} passages of the chosen kind */
function members({ data, kind }) {
  return data === null ? [] : data.passages.flatMap((passage, i) => (passage.kind === kind ? [i] : []));
}

/** @param {number} slot */
function ordinal(slot) {
  return slot === 0 ? "1st (largest weight)" : ["2nd", "3rd"][slot - 1] ?? `${slot + 1}th`;
}

/** @param {Frame} frame */
function layout(frame) {
  const kind = selectField("Tokens of", []);
  const step = sliderField("Step", {});
  step.field.classList.add("moe-wide");
  const play = button("▶ Play");
  const layer = selectField("Layer", []);
  const slot = selectField("Choice", []);
  frame.toolbar.append(layer.field, slot.field, kind.field, play, step.field);
  const strip = h("div", { class: "moe-strip", role: "listbox", "aria-label": "Tokens, coloured by expert" });
  const detail = h("aside", { class: "moe-detail", "aria-label": "The chosen token", tabindex: 0 });
  const legend = h("div", { class: "moe-legend-chips", role: "group", "aria-label": "Experts: press one to single it out" });
  const rule = h("p", { class: "moe-rule" });
  frame.body.append(h("div", { class: "moe-strip-split" }, h("div", { class: "moe-strip-main" }, h("p", { class: "moe-rule moe-rule-first" }, "Experts, and how many of these tokens each one gets:"), legend, rule, strip), detail));
  showHint(detail);
  return { kind, step, play, layer, slot, strip, detail, legend, rule };
}

/** @param {Frame} frame @returns {import("./_frame.js").Part} */
function create(frame) {
  const ui = layout(frame);
  /** @type {State} */
  const state = { data: null, kind: "", passage: 0, place: 0, slot: 0, expert: -1, token: -1, tokens: [], built: "" };
  const refresh = () => {
    if (state.data === null) return;
    syncControls(ui, state);
    showPassage(ui, state, frame);
    frame.refreshTable();
  };
  const goTo = (/** @type {number} */ nth) => {
    const before = state.data?.passages[state.passage];
    state.passage = members(state)[nth] ?? state.passage;
    const now = state.data?.passages[state.passage];
    // The reader keeps their token while the same text goes by.
    const isSame = state.data !== null && before && now && isSameText(state.data, before, now);
    state.token = isSame && state.token >= 0 ? state.token - before.start + now.start : -1;
    refresh();
  };
  const place = () => ({ index: members(state).indexOf(state.passage), count: members(state).length });
  const player = createPlayer(ui.play, place, goTo, frame.signal);
  wire(frame, ui, state, { refresh, goTo, stop: player.stop });
  return {
    update(payload) {
      adopt(state, readTokens(payload));
      refresh();
    },
    redraw: refresh,
    table: () => tableOf(state),
    select: (selection) => follow(state, selection, refresh),
  };
}

/** @param {State} state @param {TokenData} data keeps what the reader chose, and follows the newest passage if they were on it */
function adopt(state, data) {
  const wasNewest = state.data === null || members(state).at(-1) === state.passage;
  const kinds = data.passages.map(({ kind }) => kind);
  if (!kinds.includes(state.kind)) state.kind = Object.keys(KINDS).find((kind) => kinds.includes(kind)) ?? "";
  const before = state.data?.passages[state.passage];
  state.data = data;
  state.built = "";
  const inKind = members(state);
  const same = data.passages.findIndex((passage) => passage.kind === before?.kind && passage.step === before.step);
  state.passage = wasNewest || same < 0 ? inKind[inKind.length - 1] : same;
  const now = data.passages[state.passage];
  const offset = before !== undefined && state.token >= 0 ? state.token - before.start : -1;
  state.token = offset >= 0 && now.start + offset < now.stop ? now.start + offset : -1;
  state.place = Math.min(state.place, data.places.length - 1);
  state.slot = Math.min(state.slot, data.slots - 1);
  if (state.expert >= data.experts) state.expert = -1;
}

/** @param {ReturnType<typeof layout>} ui @param {State} state */
function syncControls(ui, state) {
  const data = /** @type {TokenData} */ (state.data);
  const kinds = Object.entries(KINDS).filter(([kind]) => data.passages.some((passage) => passage.kind === kind));
  setOptions(ui.kind.select, kinds);
  setOptions(ui.layer.select, data.places.map(({ name }, i) => [String(i), name]));
  setOptions(ui.slot.select, Array.from({ length: data.slots }, (_, slot) => [String(slot), ordinal(slot)]));
  ui.kind.select.value = state.kind;
  ui.layer.select.value = String(state.place);
  ui.slot.select.value = String(state.slot);
  ui.kind.field.hidden = kinds.length < 2;
  ui.slot.field.hidden = data.slots < 2;
  const inKind = members(state);
  ui.step.field.hidden = ui.play.hidden = inKind.length < 2;
  ui.step.input.max = String(inKind.length - 1);
  ui.step.input.value = String(inKind.indexOf(state.passage));
  const { step, name } = data.passages[state.passage];
  ui.step.caption.textContent = state.kind === "generate" ? "Text" : "Step";
  ui.step.output.textContent = state.kind === "generate" ? `${inKind.indexOf(state.passage) + 1} of ${inKind.length}` : grouped(step);
  ui.step.input.setAttribute("aria-valuetext", name);
}

/** @param {ReturnType<typeof layout>} ui @param {State} state @param {Frame} frame */
function showPassage(ui, state, frame) {
  const data = /** @type {TokenData} */ (state.data);
  const passage = data.passages[state.passage];
  const counts = tally(data, passage, state.place, state.slot);
  const look = looks(data.experts, counts, frame.isDark());
  const key = String(state.passage);
  if (state.built !== key) state.tokens = buildStrip(ui.strip, data, passage);
  state.built = key;
  paintStrip(state.tokens, data, passage, { ...state, look });
  showExperts(ui.legend, counts, look, state.expert);
  ui.rule.textContent = `${colourRule(data.experts)} Deeper colour: larger weight. Press an expert to single it out.`;
  const inKind = members(state);
  const previous = data.passages[inKind[inKind.indexOf(state.passage) - 1]];
  const before = previous && isSameText(data, previous, passage) ? previous : null;
  frame.lead(passageSentence(data, passage, state.place, state.slot, before));
  ui.strip.setAttribute("aria-label", `${passage.name}: ${plural(passage.stop - passage.start, "token")}, coloured by expert of ${data.places[state.place].name}`);
  showToken(ui, state);
}

/** @param {ReturnType<typeof layout>} ui @param {State} state marks the chosen token and tells all about it */
function showToken(ui, { data, passage, tokens, token, place }) {
  if (data === null) return;
  markChosen(tokens, token < 0 ? -1 : token - data.passages[passage].start);
  if (token >= 0) showDetail(ui.detail, data, token, { place, kind: data.passages[passage].kind });
  else showHint(ui.detail);
}

/**
 * @param {Frame} frame @param {ReturnType<typeof layout>} ui @param {State} state
 * @param {{ refresh: () => void, goTo: (nth: number) => void, stop: () => void }} act
 */
function wire(frame, ui, state, { refresh, goTo, stop }) {
  const { signal } = frame;
  const on = (/** @type {HTMLElement} */ element, /** @type {string} */ type, /** @type {(event: any) => void} */ listener) =>
    element.addEventListener(type, listener, { signal });
  on(ui.layer.select, "change", () => {
    state.place = Number(ui.layer.select.value);
    refresh();
  });
  on(ui.slot.select, "change", () => {
    state.slot = Number(ui.slot.select.value);
    refresh();
  });
  on(ui.kind.select, "change", () => {
    stop();
    state.kind = ui.kind.select.value;
    goTo(members(state).length - 1);
  });
  on(ui.step.input, "input", () => {
    stop();
    goTo(Number(ui.step.input.value));
  });
  on(ui.legend, "click", (event) => {
    const chip = event.target instanceof Element ? event.target.closest("[data-expert]") : null;
    if (chip === null) return;
    const expert = Number(chip.dataset.expert);
    state.expert = state.expert === expert ? -1 : expert;
    refresh();
  });
  on(ui.strip, "click", (event) => {
    const token = event.target instanceof Element ? event.target.closest("[data-token]") : null;
    if (token !== null) pick(frame, ui, state, Number(token.dataset.token));
  });
  on(ui.strip, "pointerover", (event) => {
    const token = event.target instanceof Element ? event.target.closest("[data-token]") : null;
    if (token !== null && state.data !== null) preview(ui, state, Number(token.dataset.token));
  });
  on(ui.strip, "pointerleave", () => showToken(ui, state));
  on(ui.strip, "keydown", (event) => {
    const next = neighbour(state.tokens, event.key, document.activeElement ?? event.target);
    if (next === null && event.key !== "Escape") return;
    event.preventDefault();
    pick(frame, ui, state, next === null ? -1 : Number(next.dataset.token));
  });
}

/** @param {ReturnType<typeof layout>} ui @param {State} state @param {number} token under the pointer: told, not chosen */
function preview(ui, { data, passage, place }, token) {
  if (data !== null) showDetail(ui.detail, data, token, { place, kind: data.passages[passage].kind });
}

/** @param {Frame} frame @param {ReturnType<typeof layout>} ui @param {State} state @param {number} token -1 for none */
function pick(frame, ui, state, token) {
  state.token = token;
  showToken(ui, state);
  const data = state.data;
  if (data === null || token < 0) return;
  const passage = data.passages[state.passage];
  state.tokens[token - passage.start].focus();
  frame.say(`${visible(data.pieces[token])}: ${choicesSentence(choicesOf(data, token, state.place))}`);
  frame.choose({ token: data.index[token], step: passage.step, layer: data.places[state.place].layer });
}

/** @param {State} state @param {Record<string, number>} selection @param {() => void} refresh */
function follow(state, { step, layer, expert, token }, refresh) {
  const { data } = state;
  if (data === null) return;
  if (followToken(state, data, token)) step = NaN;
  const place = data.places.findIndex((candidate) => candidate.layer === layer);
  if (place >= 0) state.place = place;
  if (Number.isFinite(expert)) state.expert = expert;
  if (Number.isFinite(step) && state.kind !== "generate") {
    const distance = (/** @type {number} */ i) => Math.abs(data.passages[i].step - step);
    state.passage = members(state).reduce((best, i) => (distance(i) < distance(best) ? i : best), state.passage);
    const { start, stop } = data.passages[state.passage];
    if (state.token < start || state.token >= stop) state.token = -1;
  }
  refresh();
}

/**
 * Goes to a token that was chosen in another view, by its place in the trace.
 * @param {State} state @param {TokenData} data @param {number} token @returns {boolean} it is here
 */
function followToken(state, data, token) {
  const at = token >= 0 ? data.index.indexOf(token) : -1;
  const passage = data.passages.findIndex(({ start, stop }) => start <= at && at < stop);
  if (passage < 0) return false;
  state.kind = data.passages[passage].kind;
  state.passage = passage;
  state.token = at;
  return true;
}

/** @param {State} state @returns {import("./_frame.js").Table} */
function tableOf(state) {
  const data = /** @type {TokenData} */ (state.data);
  const passage = data.passages[state.passage];
  const rows = [];
  let dropped = 0;
  for (let token = passage.start; token < passage.stop; token += 1) {
    const cells = Array.from({ length: data.slots }, (_, slot) => choiceAt(data, token, state.place, slot));
    dropped += cells.filter(({ expert, isKept }) => expert >= 0 && !isKept).length;
    const words = cells.map(({ expert, weight, isKept }) => (expert < 0 ? "–" : `${expert} (${isKept ? weight.toPrecision(4) : "dropped"})`));
    rows.push([data.position[token], visible(data.pieces[token]), ...words]);
  }
  const share = rows.length > 0 ? ` ${percent(dropped / (rows.length * data.slots))} of the choices were dropped.` : "";
  const caption = `${passage.name}, ${data.places[state.place].name}: expert of each choice, weight in brackets.${share}`;
  return { caption, head: ["Position", "Token", ...Array.from({ length: data.slots }, (_, slot) => `Choice ${slot + 1}`)], rows };
}

export default defineView({ name: "token_strip", title: "Where does each token go?", style: STRIP_STYLE + DETAIL_STYLE, create });
