// @ts-check
/** One token: what it is, and its experts in every layer with their weights. */
import { h } from "./_dom.js";
import { number, plural } from "./_number.js";
import { choicesOf, visible } from "./_tokens.js";

/** @typedef {import("./_tokens.js").TokenData} TokenData */

/**
 * One choice: bold the expert, then its weight with a bar.
 * @param {import("./_tokens.js").Choice} choice @param {number} largest weight of the choices beside it
 */
export function chip(choice, largest) {
  const element = h("span", {}, h("b", {}), h("span", {}));
  fillChip(element, choice, largest);
  return element;
}

/** @param {HTMLElement} element @param {import("./_tokens.js").Choice} choice @param {number} largest */
function fillChip(element, { expert, weight, isKept }, largest) {
  element.hidden = false;
  element.className = isKept ? "moe-chip" : "moe-chip moe-chip-dropped";
  element.children[0].textContent = String(expert);
  element.children[1].textContent = isKept ? number(weight) : "dropped";
  element.style.backgroundSize = `${isKept && largest > 0 ? (100 * Math.max(0, weight)) / largest : 0}% 3px`;
  element.title = isKept ? `expert ${expert}, weight ${weight}` : `expert ${expert}: dropped, its capacity was used up`;
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
 * @typedef {{ names: string, title: HTMLElement, facts: HTMLElement, caption: HTMLElement, rows: HTMLTableRowElement[] }} Detail
 *   names: of the layers that its rows are made for
 */

/** What stands in a panel is kept and filled anew: a hover over 64 layers must not build a table. @type {WeakMap<HTMLElement, Detail>} */
const details = new WeakMap();

/** @param {HTMLElement} host @param {TokenData} data @returns {Detail} */
function detailOf(host, data) {
  const names = JSON.stringify(data.places.map(({ name }) => name));
  const known = details.get(host);
  if (known !== undefined && known.names === names && known.title.parentNode === host) return known;
  const rows = data.places.map(({ name }) => h("tr", { role: "row" }, h("th", { scope: "row", role: "rowheader" }, name), h("td", { role: "cell" })));
  const detail = { names, title: h("p", { class: "moe-detail-token" }), facts: h("dl", { class: "moe-facts" }), caption: h("caption", {}), rows };
  const head = h("tr", { role: "row" }, h("th", { scope: "col", role: "columnheader" }, "Layer"), h("th", { scope: "col", role: "columnheader" }, "Experts, largest weight first"));
  // Rows are grids, so that those out of sight cost nothing; the roles say that it is a table all the same.
  const body = h("tbody", { role: "rowgroup" }, ...rows);
  const table = h("table", { class: "moe-detail-table moe-detail-rows", role: "table" }, detail.caption, h("thead", { class: "moe-hidden-head", role: "rowgroup" }, head), body);
  host.replaceChildren(detail.title, detail.facts, table);
  details.set(host, detail);
  return detail;
}

/**
 * @param {HTMLElement} host
 * @param {TokenData} data
 * @param {number} token
 * @param {{ place: number, kind: string }} context the layer chosen in the view; the kind of the token's passage
 */
export function showDetail(host, data, token, { place, kind }) {
  const detail = detailOf(host, data);
  let kept = 0;
  detail.rows.forEach((row, i) => {
    const choices = choicesOf(data, token, i);
    kept += choices.filter(({ isKept }) => isKept).length;
    if ((row.getAttribute("aria-current") !== null) !== (i === place)) row.toggleAttribute("aria-current", i === place);
    if (i === place) row.setAttribute("aria-current", "true");
    fillChoices(row.cells[1], choices);
  });
  detail.title.textContent = visible(data.pieces[token]);
  detail.facts.replaceChildren(...identity(data, token, kind).flatMap(([key, value]) => [h("dt", {}, key), h("dd", {}, value)]));
  detail.caption.textContent = `${plural(kept, "expert")} in ${plural(data.places.length, "layer")} worked on this token. Bold: expert. Bar and number: weight.`;
}

/** @param {HTMLElement} cell @param {import("./_tokens.js").Choice[]} choices */
function fillChoices(cell, choices) {
  if (choices.length === 0) return cell.replaceChildren("no expert");
  if (cell.childElementCount === 0) cell.replaceChildren();
  const largest = Math.max(0, ...choices.filter(({ isKept }) => isKept).map(({ weight }) => weight));
  choices.forEach((choice, i) => {
    const known = /** @type {HTMLElement | undefined} */ (cell.children[i]);
    if (known === undefined) cell.append(chip(choice, largest));
    else fillChip(known, choice, largest);
  });
  while (cell.childElementCount > choices.length) cell.lastElementChild?.remove();
}

/** @param {HTMLElement} host */
export function showHint(host) {
  const text = "Click a token, or move to it with the arrow keys, to see its experts in every layer.";
  host.replaceChildren(h("p", { class: "moe-detail-hint" }, text));
}

export const DETAIL_STYLE = `
.moe-detail { padding: 12px 14px; border-radius: 8px; background: var(--moe-panel); max-height: 470px; overflow: auto; contain: layout style; }
.moe-detail-hint { margin: 0; color: var(--moe-muted); }
.moe-detail-token { margin: 0; padding: 2px 0 6px; font: 600 17px/1.3 var(--moe-mono); white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; }
.moe-detail-table { width: 100%; margin-top: 10px; border-collapse: collapse; table-layout: fixed; font-size: 13px; }
.moe-detail-table caption { padding-bottom: 6px; font-size: 12.5px; text-align: left; color: var(--moe-muted); }
.moe-detail-table th, .moe-detail-table td { padding: 5px 4px; border-top: 1px solid var(--moe-line); text-align: left; vertical-align: top; background: none; color: var(--moe-text); }
.moe-detail-table th { width: 30%; font-weight: 400; overflow-wrap: anywhere; }
.moe-detail-table tr[aria-current] th { font-weight: 650; box-shadow: inset 3px 0 var(--moe-accent); padding-left: 9px; }
.moe-hidden-head { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.moe-detail-rows { display: block; }
.moe-detail-rows caption, .moe-detail-rows tbody { display: block; }
.moe-detail-rows tbody tr { display: grid; grid-template-columns: 30% minmax(0, 1fr); border-top: 1px solid var(--moe-line); content-visibility: auto; contain-intrinsic-size: auto 30px; }
.moe-detail-rows tbody :is(th, td) { width: auto; border-top: 0; }
.moe-chip { display: inline-flex; gap: 6px; min-width: 68px; margin: 0 8px 2px 0; padding-bottom: 4px; font-variant-numeric: tabular-nums;
  background: linear-gradient(var(--moe-mark), var(--moe-mark)) left bottom / 0 3px no-repeat; }
.moe-chip-dropped { color: var(--moe-muted); }
.moe-chip-dropped b { text-decoration: line-through; }
`;
