// @ts-check
/** The same text under two routers: over each token the expert of the first, under it that of the second. */
import { h } from "./_dom.js";
import { bandOf, paintBand, showExperts } from "./_legend.js";
import { plural } from "./_number.js";
import { markChosen, neighbour } from "./_strip.js";
import { chip } from "./_token_detail.js";
import { choiceAt, choicesOf, choicesSentence, colourRule, looks, visible } from "./_tokens.js";

/**
 * @typedef {Pick<import("./_tokens.js").TokenData, "places" | "slots" | "expert" | "weight" | "kept" | "experts">} Side
 * @typedef {{ pieces: string[], sides: [Side, Side], words: [string, string], short: [string, string] }} PairData words, short: what the two are called
 * @typedef {"first" | "lesser" | "fewer" | ""} Difference the expert with the largest weight differs, only others do, one of
 *   the two merely takes fewer of the same, or none
 * @typedef {{ show: (data: PairData, place: number) => void, pick: (token: number) => void, refresh: () => void }} Pairs
 */

/**
 * @param {{ host: HTMLElement, frame: import("./_frame.js").Frame, onPick: (token: number) => void }} options
 * @returns {Pairs}
 */
export function createPairs({ host, frame, onPick }) {
  const rule = h("p", { class: "moe-rule" });
  const legend = h("div", { class: "moe-legend-chips", role: "group", "aria-label": "Experts: press one to single it out" });
  const strip = h("div", { class: "moe-strip", role: "listbox", "aria-label": "Tokens with the experts of both routers" });
  const detail = h("aside", { class: "moe-detail", "aria-label": "The chosen token", tabindex: 0 });
  host.append(h("div", { class: "moe-strip-split" }, h("div", { class: "moe-strip-main" }, rule, legend, strip), detail));
  /** @type {PairData | null} */
  let data = null;
  /** @type {HTMLElement[]} */
  let tokens = [];
  const state = { place: 0, token: -1, expert: -1, built: "" };
  const refresh = () => {
    if (data === null) return;
    const key = JSON.stringify(data.pieces);
    if (key !== state.built) tokens = build(strip, data.pieces);
    if (key !== state.built && state.token >= data.pieces.length) state.token = -1;
    state.built = key;
    paint({ tokens, legend, rule }, data, state, frame.isDark());
    markChosen(tokens, state.token);
    if (state.token >= 0) showBoth(detail, data, state.token, state.place);
    else detail.replaceChildren(h("p", { class: "moe-detail-hint" }, "Click a token, or move to it with the arrow keys, to see its experts under both routers in every layer."));
  };
  const pick = (/** @type {number} */ token) => {
    state.token = token;
    refresh();
  };
  const choose = (/** @type {number} */ token) => {
    pick(token);
    if (token < 0 || data === null) return;
    tokens[token].focus();
    frame.say(sentence(data, token, state.place));
    onPick(token);
  };
  strip.addEventListener("click", (event) => {
    const token = event.target instanceof Element ? event.target.closest("[data-token]") : null;
    if (token instanceof HTMLElement) choose(Number(token.dataset.token));
  }, { signal: frame.signal });
  strip.addEventListener("keydown", (event) => {
    const root = /** @type {Document | ShadowRoot} */ (strip.getRootNode());
    const next = neighbour(tokens, event.key, root.activeElement ?? strip);
    if (next === null && event.key !== "Escape") return;
    event.preventDefault();
    choose(next === null ? -1 : Number(next.dataset.token));
  }, { signal: frame.signal });
  legend.addEventListener("click", (event) => {
    const pressed = event.target instanceof Element ? event.target.closest("[data-expert]") : null;
    if (!(pressed instanceof HTMLElement)) return;
    state.expert = state.expert === Number(pressed.dataset.expert) ? -1 : Number(pressed.dataset.expert);
    refresh();
  }, { signal: frame.signal });
  return {
    show(fresh, place) {
      data = fresh;
      state.place = place;
      refresh();
    },
    pick,
    refresh,
  };
}

/** @param {HTMLElement} host @param {string[]} pieces @returns {HTMLElement[]} */
function build(host, pieces) {
  host.replaceChildren();
  let line = h("div", { class: "moe-line", role: "presentation" });
  const tokens = pieces.map((piece, token) => {
    const text = h("span", { class: "moe-token-text" }, visible(piece));
    const box = h("span", { class: "moe-token moe-pair", role: "option", "data-token": token, tabindex: -1 }, bandOf("", null), text, bandOf("", null));
    line.append(box);
    if (piece.endsWith("\n") || token === pieces.length - 1) {
      host.append(line);
      line = h("div", { class: "moe-line", role: "presentation" });
    }
    return box;
  });
  return tokens;
}

/**
 * @param {{ tokens: HTMLElement[], legend: HTMLElement, rule: HTMLElement }} ui @param {PairData} data
 * @param {{ place: number, expert: number }} state @param {boolean} isDark
 */
function paint({ tokens, legend, rule }, data, { place, expert: single }, isDark) {
  const [before, after] = data.sides.map((side) => countsOf(side, tokens.length, place));
  const counts = before.map((count, expert) => count + after[expert]);
  const look = looks(counts.length, counts, isDark);
  const say = (/** @type {number} */ expert) => ({
    text: `${before[expert]} | ${after[expert]}`,
    label: `${plural(before[expert], "token")} ${data.words[0]}, ${plural(after[expert], "token")} ${data.words[1]}`,
  });
  showExperts(legend, counts, look, single, say);
  rule.textContent = `Over each token: ${data.words[0]}. Under it: ${data.words[1]}. Counts: the tokens of each expert, over | under. Outlined: the two differ; dotted: only in an expert of lesser weight. ${colourRule(counts.length)}`;
  tokens.forEach((box, token) => {
    const experts = data.sides.map((side, s) => {
      const { expert, isKept } = choiceAt(/** @type {any} */ (side), token, place, 0);
      const band = /** @type {HTMLElement} */ (s === 0 ? box.firstElementChild : box.lastElementChild);
      paintBand(band, expert < 0 ? null : look(expert));
      band.textContent = expert < 0 ? "–" : isKept ? String(expert) : `${expert}×`;
      return expert;
    });
    const difference = differenceAt(data.sides, token, place);
    box.classList.toggle("moe-moved", difference === "first");
    box.classList.toggle("moe-shifted", difference === "lesser");
    box.classList.toggle("moe-faded", single >= 0 && !experts.includes(single));
    box.setAttribute("aria-label", sentence(data, token, place));
  });
}

/** @param {Side} side @param {number} tokens @param {number} place @returns {Int32Array} tokens whose largest weight each expert has */
function countsOf(side, tokens, place) {
  const counts = new Int32Array(side.experts);
  for (let token = 0; token < tokens; token += 1) {
    const { expert } = choiceAt(/** @type {any} */ (side), token, place, 0);
    if (expert >= 0) counts[expert] += 1;
  }
  return counts;
}

/** @param {[Side, Side]} sides @param {number} token @param {number} place @returns {Difference} */
export function differenceAt(sides, token, place) {
  const [one, other] = sides.map((side) => choicesOf(/** @type {any} */ (side), token, place).map(({ expert }) => expert));
  if (one[0] !== other[0]) return "first";
  const [few, many] = one.length <= other.length ? [one, other] : [other, one];
  if (!few.every((expert) => many.includes(expert))) return "lesser";
  return few.length < many.length ? "fewer" : "";
}

/** @param {[Side, Side]} sides @param {number} tokens @param {number} place @returns {string} on how many tokens the two differ, and how */
export function differenceWords(sides, tokens, place) {
  const found = Array.from({ length: tokens }, (_, token) => differenceAt(sides, token, place));
  const count = (/** @type {Difference} */ kind) => found.filter((one) => one === kind).length;
  const fewer = count("fewer") > 0 ? `, ${count("fewer")} merely more or fewer of the same` : "";
  return `of ${plural(tokens, "token")} ${count("first")} have another first expert, ${count("lesser")} only another lesser one${fewer}`;
}

/** @type {Record<Difference, string>} */
const SAID = { first: "another first expert", lesser: "only a lesser expert differs", fewer: "one takes fewer of the same", "": "the same" };

/** @param {PairData} data @param {number} token @param {number} place @returns {string} */
function sentence({ pieces, sides, words }, token, place) {
  const said = sides.map((side, s) => `${words[s]}: ${choicesSentence(choicesOf(/** @type {any} */ (side), token, place))}`);
  return `${visible(pieces[token])}: ${said.join("; ")}; ${SAID[differenceAt(sides, token, place)]}`;
}

/** @param {HTMLElement} host @param {PairData} data @param {number} token @param {number} place the layer chosen in the view */
function showBoth(host, { pieces, sides, short }, token, place) {
  const cell = (/** @type {Side} */ side, /** @type {number} */ i) => {
    const choices = choicesOf(/** @type {any} */ (side), token, i);
    const largest = Math.max(0, ...choices.filter(({ isKept }) => isKept).map(({ weight }) => weight));
    return h("td", {}, ...(choices.length > 0 ? choices.map((choice) => chip(choice, largest)) : ["no expert"]));
  };
  const lines = sides[0].places.map(({ name }, i) => {
    const mark = { first: "≠", lesser: "≈", fewer: "⊂", "": "" }[differenceAt(sides, token, i)];
    return h("tr", { "aria-current": i === place ? "true" : undefined }, h("th", { scope: "row" }, name, " ", h("span", { class: "moe-differs" }, mark)), cell(sides[0], i), cell(sides[1], i));
  });
  const differing = sides[0].places.filter((_, i) => differenceAt(sides, token, i) !== "").length;
  host.replaceChildren(
    h("p", { class: "moe-detail-token" }, visible(pieces[token])),
    h(
      "table",
      { class: "moe-detail-table" },
      h("caption", {}, `The two differ in ${differing} of ${lines.length} layers (≠ first expert, ≈ only a lesser one, ⊂ fewer of the same). Bold: expert. Bar and number: weight.`),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Layer"), ...short.map((word) => h("th", { scope: "col" }, word)))),
      h("tbody", {}, ...lines),
    ),
  );
}

export const PAIR_STYLE = `
.moe-pair { background: var(--moe-panel); }
.moe-pair .moe-band:first-child { border-radius: 4px 4px 0 0; }
.moe-moved { outline: 2px solid var(--moe-event); outline-offset: 1px; }
.moe-shifted { outline: 2px dotted var(--moe-muted); outline-offset: 1px; }
.moe-pair .moe-token-text { line-height: 1.35; padding-bottom: 1px; }
.moe-pair[aria-selected="true"] { outline: 0; }
.moe-differs { font-weight: 700; color: var(--moe-event); }
.moe-strip:has(.moe-pair) .moe-line { gap: 6px 5px; margin-bottom: 6px; }
`;
