// @ts-check
/** What does it write? A prompt, and the text that the model adds, every token coloured by its expert. */
import { createAck } from "./_ack.js";
import { h, selectField, setOptions } from "./_dom.js";
import { defineView } from "./_frame.js";
import { showExperts } from "./_legend.js";
import { plural } from "./_number.js";
import { copyButton, pythonLine } from "./_python.js";
import { STRIP_STYLE, buildStrip, markChosen, neighbour, paintStrip } from "./_strip.js";
import { DETAIL_STYLE, showDetail, showHint } from "./_token_detail.js";
import { choicesOf, choicesSentence, colourRule, looks, readTokens, tally, visible } from "./_tokens.js";

/**
 * @typedef {import("./_frame.js").Frame} Frame
 * @typedef {import("./_tokens.js").TokenData} TokenData
 * @typedef {{ prompt: string, text: string, status: string, reason: string, settings: Record<string, number> }} Facts
 * @typedef {{ data: TokenData | null, facts: Facts | null, place: number, expert: number, token: number, tokens: HTMLElement[] }} State
 */

/** Bounds of the settings, as the command checks them. @type {[string, string, { min: number, max: number, step: number, value: number }][]} */
const SETTINGS = [
  ["max_new_tokens", "Length [tokens]", { min: 1, max: 512, step: 1, value: 64 }],
  ["temperature", "Temperature", { min: 0, max: 5, step: 0.05, value: 0.8 }],
  ["top_p", "Top-p", { min: 0.05, max: 1, step: 0.05, value: 0.95 }],
  ["seed", "Seed", { min: 0, max: 2 ** 31 - 1, step: 1, value: 0 }],
];

/** @param {import("./_payload.js").Payload} payload @returns {TokenData} one passage: the prompt and what follows it */
function read(payload) {
  const data = readTokens(payload);
  const stop = data.pieces.length;
  return { ...data, passages: [{ name: "prompt and generated text", kind: "generate", step: 0, start: 0, stop, routers: data.places.map(() => "") }] };
}

/** @param {TokenData} data @returns {number} tokens that the model wrote */
function writtenTokens({ phase, phases }) {
  return phase.reduce((count, one) => count + Number(phases[one] === "decode"), 0);
}

/** @param {Facts} facts @param {TokenData} data @returns {string} */
function sentence({ status, reason, settings }, data) {
  const most = settings.max_new_tokens;
  const written = writtenTokens(data);
  const how = settings.temperature === 0 ? "always the most probable token" : `temperature ${settings.temperature}, top-p ${settings.top_p}, seed ${settings.seed}`;
  const drawn = Number.isFinite(settings.temperature) ? ` Drawn with ${how}.` : "";
  if (status === "failed") return `It could not be written: ${reason || "no reason was given"}.`;
  if (status === "waiting") return "Waiting for the first token.";
  if (status === "writing") return `Writing: ${plural(written, "token")}${most ? ` of at most ${most}` : ""} so far.${drawn}`;
  // Nothing follows the last token, so no layer routes it.
  const plain = status === "stopped" ? "it was stopped" : written + 1 >= most ? "it has the length that was asked for" : "the model ended the text";
  return `${status === "stopped" ? "Stopped" : "Finished"}: ${reason || plain}. ${plural(written, "written token")} ${written === 1 ? "is" : "are"} shown with the experts.${drawn}`;
}

/** @param {Frame} frame */
function layout(frame) {
  const prompt = h("textarea", { class: "moe-input moe-prompt", rows: 3, maxlength: 4096, "aria-label": "Prompt" });
  prompt.value = "Once upon a time";
  const inputs = Object.fromEntries(SETTINGS.map(([name, , { min, max, step, value }]) => [name, h("input", { class: "moe-input", type: "number", min, max, step, value, required: true })]));
  const fields = SETTINGS.map(([name, label]) => h("label", { class: "moe-field" }, h("span", {}, label), inputs[name]));
  const go = h("button", { type: "submit", class: "moe-button moe-primary", title: "Ctrl+Enter" }, "Generate");
  const acts = h("div", { class: "moe-row" }, go);
  const form = h("form", { class: "moe-form", hidden: true }, prompt, h("div", { class: "moe-row" }, ...fields), acts);
  const hint = h("p", { class: "moe-quiet" }, "A run that is live writes here: start one, or open one.");
  const layer = selectField("Layer", []);
  const rule = h("p", { class: "moe-rule" });
  const legend = h("div", { class: "moe-legend-chips", role: "group", "aria-label": "Experts: press one to single it out" });
  const strip = h("div", { class: "moe-strip", role: "listbox", "aria-label": "Prompt and generated text, coloured by expert" });
  const detail = h("aside", { class: "moe-detail", "aria-label": "The chosen token", tabindex: 0 });
  const plain = h("pre", { class: "moe-plain" });
  const result = h("div", { hidden: true }, h("div", { class: "moe-row" }, layer.field), h("div", { class: "moe-strip-split" }, h("div", { class: "moe-strip-main" }, legend, rule, strip), detail), h("details", {}, h("summary", {}, "The text alone"), plain));
  frame.body.append(form, hint, result);
  showHint(detail);
  return { prompt, inputs, go, acts, form, hint, layer, rule, legend, strip, detail, plain, result };
}

/** @param {ReturnType<typeof layout>} ui @returns {Record<string, any>} arguments of the command */
function argumentsOf({ prompt, inputs }) {
  return { prompt: prompt.value, ...Object.fromEntries(SETTINGS.map(([name]) => [name, Number(inputs[name].value)])) };
}

/** @param {Frame} frame @returns {import("./_frame.js").Part} */
function create(frame) {
  const ui = layout(frame);
  /** @type {State} */
  const state = { data: null, facts: null, place: 0, expert: -1, token: -1, tokens: [] };
  const ack = createAck(frame);
  ui.acts.append(copyButton(() => pythonLine("generate", argumentsOf(ui)), frame.signal).element);
  ui.form.append(ack.element);
  const refresh = () => show(ui, state, frame);
  wire(ui, state, frame, { refresh, generate: () => ack.send("generate", argumentsOf(ui), "generate") });
  return {
    update(payload) {
      const wasWriting = state.facts?.status === "writing";
      adopt(state, payload);
      refresh();
      if (wasWriting && state.facts?.status !== "writing") frame.say(`${sentence(/** @type {Facts} */ (state.facts), /** @type {TokenData} */ (state.data))} ${state.facts?.text ?? ""}`);
    },
    redraw: refresh,
    table: () => tableOf(/** @type {TokenData} */ (state.data), state.place),
    select: ({ layer, expert }) => {
      const place = state.data?.places.findIndex((candidate) => candidate.layer === layer) ?? -1;
      if (place >= 0) state.place = place;
      if (Number.isFinite(expert)) state.expert = expert;
      refresh();
    },
    run: () => {
      ui.form.hidden = !frame.isLive();
      ui.hint.hidden = frame.isLive() || state.facts !== null;
    },
    acks: ack.hear,
  };
}

/** @param {State} state @param {import("./_payload.js").Payload} payload keeps what the reader chose */
function adopt(state, payload) {
  const { prompt, text, status, settings, reason } = payload.header;
  const isSameText = state.facts?.prompt === prompt && text.startsWith(state.facts?.text ?? "");
  state.facts = { prompt, text, status, settings, reason };
  state.data = read(payload);
  state.place = Math.max(0, Math.min(state.place, state.data.places.length - 1));
  if (!isSameText || state.token >= state.data.pieces.length) state.token = -1;
  if (state.expert >= state.data.experts) state.expert = -1;
}

/** @param {ReturnType<typeof layout>} ui @param {State} state @param {Frame} frame */
function show(ui, state, frame) {
  const { data, facts } = state;
  if (data === null || facts === null) return;
  const isWriting = facts.status === "writing" || facts.status === "waiting";
  ui.go.disabled = facts.status === "writing";
  ui.go.textContent = facts.status === "writing" ? "Writing…" : "Generate";
  ui.hint.hidden = true;
  ui.result.hidden = false;
  frame.lead(sentence(facts, data));
  ui.plain.replaceChildren(facts.prompt, h("mark", {}, facts.text), isWriting ? "▌" : "");
  const hasTokens = data.pieces.length > 0 && data.places.length > 0;
  for (const node of [ui.layer.field, ui.legend, ui.rule, ui.detail]) node.hidden = !hasTokens;
  if (!hasTokens) return ui.strip.replaceChildren();
  setOptions(ui.layer.select, data.places.map(({ name }, i) => [String(i), name]));
  ui.layer.select.value = String(state.place);
  rebuild(ui, state);
  const [passage] = data.passages;
  const counts = tally(data, passage, state.place, 0);
  const look = looks(data.experts, counts, frame.isDark());
  paintStrip(state.tokens, data, passage, { ...state, slot: 0, look });
  showExperts(ui.legend, counts, look, state.expert);
  ui.rule.textContent = `Underlined: written by the model. ${colourRule(data.experts)} Deeper colour: larger weight.`;
  showToken(ui, state);
  if (isWriting && state.token < 0) ui.strip.scrollTop = ui.strip.scrollHeight;
}

/** @param {ReturnType<typeof layout>} ui @param {State} state the text is built anew, the focus stays on its token */
function rebuild(ui, state) {
  const data = /** @type {TokenData} */ (state.data);
  const root = /** @type {Document | ShadowRoot} */ (ui.strip.getRootNode());
  const focused = state.tokens.indexOf(/** @type {HTMLElement} */ (root.activeElement));
  const top = ui.strip.scrollTop;
  state.tokens = buildStrip(ui.strip, data, data.passages[0]);
  ui.strip.scrollTop = top;
  if (focused >= 0) state.tokens[Math.min(focused, state.tokens.length - 1)]?.focus({ preventScroll: true });
}

/** @param {ReturnType<typeof layout>} ui @param {State} state */
function showToken(ui, { data, tokens, token, place }) {
  if (data === null) return;
  markChosen(tokens, token);
  if (token >= 0) showDetail(ui.detail, data, token, { place, kind: "generate" });
  else showHint(ui.detail);
}

/** @param {ReturnType<typeof layout>} ui @param {State} state @param {Frame} frame @param {{ refresh: () => void, generate: () => void }} act */
function wire(ui, state, frame, { refresh, generate }) {
  const { signal } = frame;
  const pick = (/** @type {number} */ token) => {
    state.token = token;
    showToken(ui, state);
    if (state.data === null || token < 0) return;
    state.tokens[token].focus();
    frame.say(`${visible(state.data.pieces[token])}: ${choicesSentence(choicesOf(state.data, token, state.place))}`);
    frame.choose({ layer: state.data.places[state.place].layer });
  };
  ui.form.addEventListener("submit", (event) => {
    event.preventDefault();
    generate();
  }, { signal });
  ui.prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ui.form.requestSubmit();
  }, { signal });
  ui.layer.select.addEventListener("change", () => {
    state.place = Number(ui.layer.select.value);
    refresh();
  }, { signal });
  ui.legend.addEventListener("click", (event) => {
    const chip = event.target instanceof Element ? event.target.closest("[data-expert]") : null;
    if (!(chip instanceof HTMLElement)) return;
    state.expert = state.expert === Number(chip.dataset.expert) ? -1 : Number(chip.dataset.expert);
    refresh();
  }, { signal });
  ui.strip.addEventListener("click", (event) => {
    const token = event.target instanceof Element ? event.target.closest("[data-token]") : null;
    if (token instanceof HTMLElement) pick(Number(token.dataset.token));
  }, { signal });
  ui.strip.addEventListener("keydown", (event) => {
    const root = /** @type {Document | ShadowRoot} */ (ui.strip.getRootNode());
    const next = neighbour(state.tokens, event.key, root.activeElement ?? ui.strip);
    if (next === null && event.key !== "Escape") return;
    event.preventDefault();
    pick(next === null ? -1 : Number(next.dataset.token));
  }, { signal });
}

/** @param {TokenData} data @param {number} place @returns {import("./_frame.js").Table} */
function tableOf(data, place) {
  const rows = data.pieces.map((piece, token) => {
    const written = data.phases[data.phase[token]] === "decode" ? "model" : "prompt";
    const choices = choicesOf(data, token, place).map(({ expert, weight, isKept }) => `${expert} (${isKept ? weight.toPrecision(4) : "dropped"})`);
    return [data.position[token], visible(piece), written, choices.join(", ") || "–"];
  });
  return { caption: `${data.places[place]?.name ?? "No layer"}: experts of each token, largest weight first.`, head: ["Position", "Token", "By", "Experts"], rows };
}

const STYLE = `
.moe-form { display: grid; gap: 10px; margin: 14px 0 16px; }
.moe-row { display: flex; flex-wrap: wrap; gap: 8px 14px; align-items: center; }
.moe-input { min-height: 30px; padding: 4px 8px; border: 1px solid var(--moe-line); border-radius: 6px; background: var(--moe-surface); color: var(--moe-text); font: inherit; font-size: 13.5px; }
input.moe-input { width: 84px; }
.moe-prompt { width: 100%; font-family: var(--moe-mono); resize: vertical; }
.moe-input:invalid { border-color: var(--moe-event); }
.moe-primary { border-color: var(--moe-accent); font-weight: 600; }
.moe-quiet { margin: 10px 0 0; font-size: 13.5px; color: var(--moe-muted); }
.moe-generation .moe-body > div > .moe-row { margin: 12px 0 6px; }
.moe-plain { margin: 8px 0 0; padding: 10px 12px; border-radius: 6px; background: var(--moe-panel); font: 13.5px/1.6 var(--moe-mono); white-space: pre-wrap; overflow-wrap: anywhere; max-height: 260px; overflow: auto; }
.moe-plain mark { background: none; color: inherit; font-weight: 700; }
.moe-generation summary { padding: 6px 0; font-size: 13.5px; cursor: pointer; color: var(--moe-accent); }
`;

export default defineView({ name: "generation", title: "What does it write?", hasControls: true, style: STRIP_STYLE + DETAIL_STYLE + STYLE, create });
