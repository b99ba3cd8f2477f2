// @ts-check
/** Single keys, only while the focus is inside the live view and not in a field that takes text. */
import { h } from "./_dom.js";

/** @typedef {{ playPause: () => void, step: () => void, undo: () => void, help: () => void }} Acts */

/** @type {[string, keyof Acts, string, string][]} key, what it does, how it is written, in words */
const KEYS = [
  [" ", "playPause", "Space", "pause, or go on"],
  [".", "step", ".", "take one step, then pause"],
  ["u", "undo", "u", "take the last change back"],
  ["?", "help", "?", "show or hide this list"],
];

/** @type {[string, string][]} keys of the parts themselves */
const OTHERS = [
  ["Tab", "go from control to control"],
  ["← →", "move between tabs, and inside a picture"],
  ["Enter", "choose the cell, step or token: all views follow"],
  ["Esc", "let the choice go"],
];

/** @param {HTMLElement} root @param {Acts} acts @param {AbortSignal} signal */
export function listenToKeys(root, acts, signal) {
  root.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    const entry = KEYS.find(([key]) => key === event.key);
    const target = event.composedPath()[0];
    if (entry === undefined || !(target instanceof HTMLElement) || takesKey(target, event.key)) return;
    event.preventDefault();
    acts[entry[1]]();
  }, { signal });
}

/** @param {HTMLElement} target @param {string} key @returns {boolean} the focused element needs the key itself */
function takesKey(target, key) {
  if (target.isContentEditable || target.matches("input:not([type=checkbox]):not([type=range]), textarea, select")) return true;
  return key === " " && target.matches("button, summary, a, input, [role=option], [role=tab], [role=button], [role=gridcell]");
}

/** @returns {HTMLElement} the list of keys */
export function keyList() {
  const rows = [...KEYS.map(([, , sign, words]) => [sign, words]), ...OTHERS];
  return h("dl", { class: "moe-live-help" }, ...rows.flatMap(([sign, words]) => [h("dt", {}, h("kbd", {}, sign)), h("dd", {}, words)]));
}
