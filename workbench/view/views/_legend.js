// @ts-check
/** The experts of a text as chips: number, colour, and how many of its tokens each one gets; pressing one singles it out. */
import { h } from "./_dom.js";
import { plural } from "./_number.js";

const SHOWN = 24;

/**
 * @param {HTMLElement} host keeps the focus on a chip that is drawn anew
 * @param {ArrayLike<number>} counts tokens of each expert
 * @param {(expert: number) => import("./_tokens.js").Look} look
 * @param {number} single the expert that is singled out, or -1
 * @param {(expert: number) => { text: string, label: string }} [say] what stands beside the number, and what is read out
 */
export function showExperts(host, counts, look, single, say = (expert) => ({ text: String(counts[expert]), label: plural(counts[expert], "token") })) {
  const isMany = counts.length > 16;
  const experts = Array.from(counts, (_, expert) => expert).filter((expert) => !isMany || counts[expert] > 0 || expert === single);
  if (isMany) experts.sort((a, b) => counts[b] - counts[a]);
  const shown = experts.slice(0, SHOWN);
  const root = /** @type {Document | ShadowRoot} */ (host.getRootNode());
  const focused = root.activeElement instanceof HTMLElement && host.contains(root.activeElement) ? root.activeElement.dataset.expert : undefined;
  host.replaceChildren(
    ...shown.map((expert) => chipOf(expert, say(expert), look(expert), expert === single)),
    ...(experts.length > shown.length ? [h("span", { class: "moe-rule" }, `and ${experts.length - shown.length} more experts`)] : []),
  );
  if (focused !== undefined) /** @type {HTMLElement | null} */ (host.querySelector(`[data-expert="${focused}"]`))?.focus();
}

/** @param {number} expert @param {{ text: string, label: string }} said @param {import("./_tokens.js").Look} look @param {boolean} isPressed */
function chipOf(expert, { text, label }, look, isPressed) {
  const chip = h("button", { type: "button", class: "moe-legend-chip", "data-expert": expert, "aria-pressed": String(isPressed) });
  chip.append(bandOf(String(expert), look), h("span", {}, text));
  chip.setAttribute("aria-label", `expert ${expert}: ${label}`);
  return chip;
}

/**
 * The number of an expert on its colour.
 * @param {string} text @param {import("./_tokens.js").Look | null} look null for no expert
 */
export function bandOf(text, look) {
  const band = h("b", { class: "moe-band" }, text);
  paintBand(band, look);
  return band;
}

/** @param {HTMLElement} band @param {import("./_tokens.js").Look | null} look null for no expert */
export function paintBand(band, look) {
  band.className = `moe-band moe-${look === null ? "none" : look.kind}`;
  band.style.setProperty("--hue", look?.hue ?? "");
  band.style.setProperty("--ink", look?.ink ?? "");
}
