// @ts-check
/** One bar per layer with its number; pressing one chooses the layer. */
import { h } from "./_dom.js";

/**
 * @typedef {{ name: string, value: number, text: string, isChosen: boolean, note?: string }} Bar value: 0..1
 * @typedef {{ show: (bars: Bar[]) => void }} Bars
 */

/** @param {{ host: HTMLElement, signal: AbortSignal, onPick: (index: number) => void }} options @returns {Bars} */
export function createBars({ host, signal, onPick }) {
  const list = h("ul", { class: "moe-bars", "data-shows-numbers": true });
  host.append(list);
  list.addEventListener("click", (event) => {
    const pressed = event.target instanceof Element ? event.target.closest("button") : null;
    if (pressed !== null) onPick(Number(pressed.dataset.index));
  }, { signal });
  return {
    show(bars) {
      if (list.childElementCount !== bars.length) list.replaceChildren(...bars.map((_, i) => row(i)));
      bars.forEach((bar, i) => fill(/** @type {HTMLElement} */ (list.children[i].firstElementChild), bar));
    },
  };
}

/** @param {number} index */
function row(index) {
  const press = h("button", { type: "button", class: "moe-bar", "data-index": index });
  press.append(h("span", { class: "moe-bar-name" }), h("span", { class: "moe-bar-track" }, h("span", { class: "moe-bar-fill" })), h("span", { class: "moe-bar-text" }));
  return h("li", {}, press);
}

/** @param {HTMLElement} press @param {Bar} bar */
function fill(press, { name, value, text, isChosen, note }) {
  press.children[0].textContent = name;
  press.style.setProperty("--share", Number.isFinite(value) ? String(Math.max(0, Math.min(1, value))) : "0");
  press.children[2].textContent = text;
  press.setAttribute("aria-pressed", String(isChosen));
  press.title = note ?? "";
}

export const BARS_STYLE = `
.moe-bars { margin: 6px 0 0; padding: 0; list-style: none; max-height: 420px; overflow: auto; }
.moe-bar { display: grid; grid-template-columns: 64px minmax(40px, 1fr) 52px; gap: 8px; align-items: center; width: 100%; min-height: 26px; padding: 2px 6px;
  border: 0; border-radius: 4px; background: none; color: var(--moe-text); font: 13px/1.4 var(--moe-font); text-align: left; cursor: pointer; }
.moe-bar:hover { background: var(--moe-panel); }
.moe-bar[aria-pressed="true"] { background: var(--moe-panel); box-shadow: inset 3px 0 var(--moe-accent); font-weight: 600; }
.moe-bar-track { height: 10px; background: var(--moe-grid); }
.moe-bar-fill { display: block; height: 100%; width: calc(100% * var(--share)); background: var(--moe-mark); }
.moe-bar-text { text-align: right; font-variant-numeric: tabular-nums; }
@media (forced-colors: active) { .moe-bar-fill { background: CanvasText; } .moe-bar-track { border: 1px solid CanvasText; } }
`;
