// @ts-check
/** The running text: one box per token, its expert's number and colour in the band below it. */
import { h } from "./_dom.js";
import { choiceAt, choicesOf, choicesSentence, visible } from "./_tokens.js";

/**
 * @typedef {import("./_tokens.js").TokenData} TokenData
 * @typedef {import("./_tokens.js").Passage} Passage
 */

/**
 * @param {HTMLElement} host
 * @param {TokenData} data
 * @param {Passage} passage
 * @returns {HTMLElement[]} the token elements, in order
 */
export function buildStrip(host, data, { start, stop }) {
  /** @type {HTMLElement[]} */
  const tokens = [];
  host.replaceChildren();
  let line = h("div", { class: "moe-line", role: "presentation" });
  const close = () => {
    if (line.childElementCount > 0) host.append(line);
    line = h("div", { class: "moe-line", role: "presentation" });
  };
  for (let token = start; token < stop; token += 1) {
    if (token > start && data.sequence[token] !== data.sequence[token - 1]) {
      close();
      line.classList.add("moe-line-first");
    }
    const isWritten = data.phases[data.phase[token]] === "decode";
    const text = h("span", { class: "moe-token-text" }, visible(data.pieces[token]));
    const box = h("span", { class: isWritten ? "moe-token moe-written" : "moe-token", role: "option", "data-token": token, tabindex: -1 }, text, h("b", { class: "moe-band" }));
    tokens.push(box);
    line.append(box);
    if (data.pieces[token].endsWith("\n")) close();
  }
  close();
  return tokens;
}

/**
 * @param {HTMLElement[]} tokens
 * @param {TokenData} data
 * @param {Passage} passage
 * @param {{ place: number, slot: number, expert: number, look: (expert: number) => import("./_tokens.js").Look }} options
 */
export function paintStrip(tokens, data, { start }, { place, slot, expert: single, look }) {
  tokens.forEach((box, i) => {
    const { expert, weight, isKept } = choiceAt(data, start + i, place, slot);
    const band = /** @type {HTMLElement} */ (box.lastElementChild);
    const { kind, hue, ink } = expert < 0 ? { kind: "none", hue: "", ink: "" } : look(expert);
    band.className = `moe-band moe-${kind}`;
    band.textContent = expert < 0 ? "–" : isKept ? String(expert) : `${expert}×`;
    box.style.setProperty("--hue", hue);
    box.style.setProperty("--ink", ink);
    box.style.setProperty("--strength", `${expert < 0 || hue === "" || !isKept ? 0 : Math.round(10 + 26 * Math.min(1, Math.max(0, weight)))}%`);
    box.classList.toggle("moe-faded", single >= 0 && expert !== single);
    box.classList.toggle("moe-dropped", expert >= 0 && !isKept);
    box.setAttribute("aria-label", `${visible(data.pieces[start + i])}: ${choicesSentence(choicesOf(data, start + i, place))}`);
  });
}

/**
 * Marks the chosen token, which is also the one that the Tab key reaches.
 * @param {HTMLElement[]} tokens @param {number} chosen index among them, -1 for none
 */
export function markChosen(tokens, chosen) {
  tokens.forEach((box, i) => {
    const isChosen = i === chosen;
    if (box.getAttribute("aria-selected") !== String(isChosen)) box.setAttribute("aria-selected", String(isChosen));
    const stop = isChosen || (chosen < 0 && i === 0) ? 0 : -1;
    if (box.tabIndex !== stop) box.tabIndex = stop;
  });
}

/**
 * The token that a key leads to.
 * @param {HTMLElement[]} tokens
 * @param {string} key
 * @param {EventTarget} from
 * @returns {HTMLElement | null} null when the key is not ours
 */
export function neighbour(tokens, key, from) {
  const now = tokens.indexOf(/** @type {HTMLElement} */ (from));
  if (now < 0) return null;
  const last = tokens.length - 1;
  if (key === "ArrowUp" || key === "ArrowDown") return vertical(tokens, now, key === "ArrowUp" ? -1 : 1);
  /** @type {Record<string, number>} */
  const moves = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last, Enter: now, " ": now };
  return key in moves ? tokens[Math.max(0, Math.min(last, moves[key]))] : null;
}

/** @param {HTMLElement[]} tokens @param {number} now @param {1 | -1} direction @returns {HTMLElement} the nearest token one line away */
function vertical(tokens, now, direction) {
  const { offsetTop, offsetLeft, offsetWidth } = tokens[now];
  const middle = offsetLeft + offsetWidth / 2;
  const distance = (/** @type {HTMLElement} */ token) => Math.abs(token.offsetLeft + token.offsetWidth / 2 - middle);
  let row = NaN;
  let best = tokens[now];
  for (let i = now + direction; i >= 0 && i < tokens.length; i += direction) {
    const token = tokens[i];
    if (token.offsetTop === offsetTop) continue;
    if (Number.isNaN(row)) {
      row = token.offsetTop;
      best = token;
    }
    if (token.offsetTop !== row) break;
    if (distance(token) < distance(best)) best = token;
  }
  return best;
}

export const STRIP_STYLE = `
.moe-strip-split { display: grid; grid-template-columns: minmax(0, 1fr) 280px; gap: 14px 20px; align-items: start; }
.moe-strip { max-height: 430px; overflow: auto; padding: 4px; position: relative; contain: layout style; }
.moe-line { display: flex; flex-wrap: wrap; gap: 4px 3px; margin-bottom: 4px; }
.moe-line-first { margin-top: 12px; padding-top: 12px; border-top: 1px solid var(--moe-grid); }
.moe-token { display: inline-flex; flex-direction: column; min-width: 26px; max-width: 100%; border-radius: 4px; cursor: pointer;
  background: color-mix(in srgb, var(--hue, var(--moe-empty)) var(--strength), var(--moe-surface)); }
.moe-token-text { padding: 1px 4px 0; font: 13.5px/1.5 var(--moe-mono); text-align: center; white-space: pre; overflow: hidden; text-overflow: ellipsis;
  unicode-bidi: isolate; color: var(--moe-text); }
.moe-written .moe-token-text { font-weight: 700; text-decoration: underline dotted; text-underline-offset: 3px; }
.moe-band { display: block; min-width: 20px; border: 2px solid var(--moe-empty); border-radius: 0 0 4px 4px; padding: 0 3px; text-align: center;
  font: 600 11px/13px var(--moe-font); font-variant-numeric: tabular-nums; color: var(--moe-text); }
.moe-band.moe-solid { background: var(--hue); border-color: var(--hue); color: var(--ink); }
.moe-band.moe-hollow { background: var(--moe-surface); border-color: var(--hue); }
.moe-band.moe-plain { background: var(--moe-panel); }
.moe-band.moe-none { background: none; border-style: dashed; color: var(--moe-muted); }
.moe-dropped .moe-band { background: repeating-linear-gradient(45deg, var(--moe-surface) 0 4px, var(--moe-panel) 4px 8px); border-style: dashed; color: var(--moe-text); }
.moe-faded { opacity: 0.28; }
.moe-faded:hover, .moe-faded:focus { opacity: 1; }
.moe-token:hover { box-shadow: 0 0 0 2px var(--moe-muted); }
.moe-token[aria-selected="true"] { box-shadow: 0 0 0 2px var(--moe-surface), 0 0 0 4px var(--moe-text); z-index: 1; opacity: 1; }
.moe-legend-chips { display: flex; flex-wrap: wrap; gap: 4px; }
.moe-legend-chip { display: inline-flex; align-items: center; gap: 5px; min-height: 26px; padding: 2px 7px 2px 4px; border: 1px solid transparent; border-radius: 6px;
  background: none; font: 12.5px/1 var(--moe-font); font-variant-numeric: tabular-nums; color: var(--moe-muted); cursor: pointer; }
.moe-legend-chip .moe-band { border-radius: 4px; }
.moe-legend-chip:hover, .moe-legend-chip[aria-pressed="true"] { background: var(--moe-panel); color: var(--moe-text); }
.moe-legend-chip[aria-pressed="true"] { border-color: var(--moe-accent); }
.moe-rule { margin: 4px 4px 10px; font-size: 12.5px; color: var(--moe-muted); }
.moe-rule.moe-rule-first { margin-bottom: 2px; }
@container (max-width: 680px) { .moe-strip-split { grid-template-columns: minmax(0, 1fr); } .moe-strip { max-height: 360px; } }
@media (forced-colors: active) { .moe-band { border-color: CanvasText; } }
`;
