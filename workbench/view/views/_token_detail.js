// @ts-check
/** One token: what it is, and its experts in every layer with their weights. */
import { h } from "./_dom.js";
import { number, plural } from "./_number.js";
import { choicesOf, visible } from "./_tokens.js";

/** @typedef {import("./_tokens.js").TokenData} TokenData */

/** @param {import("./_tokens.js").Choice} choice @param {number} largest */
function chip({ expert, weight, isKept }, largest) {
  const element = h("span", { class: isKept ? "moe-chip" : "moe-chip moe-chip-dropped" });
  element.append(h("b", {}, String(expert)), h("span", {}, isKept ? number(weight) : "dropped"));
  element.style.setProperty("--share", isKept && largest > 0 ? String(Math.max(0, weight) / largest) : "0");
  element.title = isKept ? `expert ${expert}, weight ${weight}` : `expert ${expert}: dropped, its capacity was used up`;
  return element;
}

/** @param {TokenData} data @param {number} token @param {string} kind of its passage @returns {[string, string][]} */
function identity(data, token, kind) {
  /** @type {[string, string][]} */
  const rows = [["Position", `${data.position[token]} of sequence ${data.sequence[token]}`], ["Token id", String(data.tokenId[token])]];
  if (data.domain[token] >= 0) rows.push(["Domain", data.domains[data.domain[token]]]);
  const phase = data.phases[data.phase[token]];
  const words = { train: "training batch", eval: "held-out text", prefill: "prompt", decode: "written by the model" }[phase] ?? phase;
  rows.push(["Part of", kind === "probe" ? "the probe text" : words]);
  return rows;
}

/**
 * @param {HTMLElement} host
 * @param {TokenData} data
 * @param {number} token
 * @param {{ place: number, kind: string }} context the layer chosen in the view; the kind of the token's passage
 */
export function showDetail(host, data, token, { place, kind }) {
  const lines = data.places.map(({ name }, i) => {
    const choices = choicesOf(data, token, i);
    const largest = Math.max(0, ...choices.filter(({ isKept }) => isKept).map(({ weight }) => weight));
    const cell = h("td", {}, ...(choices.length > 0 ? choices.map((choice) => chip(choice, largest)) : ["no expert"]));
    return h("tr", { "aria-current": i === place ? "true" : undefined }, h("th", { scope: "row" }, name), cell);
  });
  const kept = data.places.reduce((sum, _, i) => sum + choicesOf(data, token, i).filter(({ isKept }) => isKept).length, 0);
  host.replaceChildren(
    h("p", { class: "moe-detail-token" }, visible(data.pieces[token])),
    h("dl", { class: "moe-facts" }, ...identity(data, token, kind).flatMap(([key, value]) => [h("dt", {}, key), h("dd", {}, value)])),
    h(
      "table",
      { class: "moe-detail-table" },
      h("caption", {}, `${plural(kept, "expert")} in ${plural(data.places.length, "layer")} worked on this token. Bold: expert. Bar and number: weight.`),
      h("thead", { class: "moe-hidden-head" }, h("tr", {}, h("th", { scope: "col" }, "Layer"), h("th", { scope: "col" }, "Experts, largest weight first"))),
      h("tbody", {}, ...lines),
    ),
  );
}

/** @param {HTMLElement} host */
export function showHint(host) {
  const text = "Click a token, or move to it with the arrow keys, to see its experts in every layer.";
  host.replaceChildren(h("p", { class: "moe-detail-hint" }, text));
}

export const DETAIL_STYLE = `
.moe-detail { padding: 12px 14px; border-radius: 8px; background: var(--moe-panel); max-height: 470px; overflow: auto; }
.moe-detail-hint { margin: 0; color: var(--moe-muted); }
.moe-detail-token { margin: 0; padding: 2px 0 6px; font: 600 17px/1.3 var(--moe-mono); white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; }
.moe-detail-table { width: 100%; margin-top: 10px; border-collapse: collapse; font-size: 13px; }
.moe-detail-table caption { padding-bottom: 6px; font-size: 12.5px; text-align: left; color: var(--moe-muted); }
.moe-detail-table th, .moe-detail-table td { padding: 5px 4px; border-top: 1px solid var(--moe-line); text-align: left; vertical-align: top; background: none; color: var(--moe-text); }
.moe-detail-table th { font-weight: 400; white-space: nowrap; }
.moe-detail-table tr[aria-current] th { font-weight: 650; box-shadow: inset 3px 0 var(--moe-accent); padding-left: 9px; }
.moe-hidden-head { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.moe-chip { position: relative; display: inline-flex; gap: 6px; min-width: 68px; margin: 0 8px 2px 0; padding-bottom: 4px; font-variant-numeric: tabular-nums; }
.moe-chip::after { content: ""; position: absolute; left: 0; bottom: 0; height: 3px; width: calc(100% * var(--share)); background: var(--moe-mark); }
.moe-chip-dropped { color: var(--moe-muted); }
.moe-chip-dropped b { text-decoration: line-through; }
`;
