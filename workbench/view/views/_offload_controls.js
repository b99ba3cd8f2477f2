// @ts-check
/** Where the experts of a run are while it writes: how many stay in memory, who leaves, who is fetched early. */
import { button, h, setOptions } from "./_dom.js";
import { grouped, percent } from "./_number.js";

/** @typedef {import("./_extra.js").Act} Act */

/** @param {{ act: Act, signal: AbortSignal }} options */
export function createOffloadControls({ act, signal }) {
  const experts = h("input", { class: "moe-live-input", type: "number", min: 1, step: 1, "aria-label": "Experts in memory" });
  const set = button("Set");
  const policy = h("select", { class: "moe-select", "aria-label": "Cache policy" });
  const prefetcher = h("select", { class: "moe-select", "aria-label": "Prefetcher" });
  const facts = h("p", {});
  const row = h("div", { class: "moe-live-row" }, experts, set, policy, prefetcher);
  const root = h("fieldset", { hidden: true }, h("legend", {}, "Offload"), facts, row);
  const on = (/** @type {HTMLElement} */ element, /** @type {string} */ type, /** @type {() => void} */ listener) => element.addEventListener(type, listener, { signal });
  const resize = () => void (experts.value !== "" && experts.reportValidity() && act("set_cache_size", { experts: Number(experts.value) }));
  on(set, "click", resize);
  on(policy, "change", () => act("set_policy", { name: policy.value }));
  on(prefetcher, "change", () => act("set_prefetcher", { name: prefetcher.value }));
  return {
    root,
    /** @param {any} state */
    show(state) {
      const { offload, choices } = state;
      root.hidden = !offload;
      if (!offload) return;
      const hits = typeof offload.hit_rate === "number" ? `, ${percent(offload.hit_rate)} of requests found theirs there` : "";
      const words = `${grouped(offload.experts)} of ${grouped(offload.all_experts)} experts are in memory, the rest on disk${hits}. A change acts between two tokens.`;
      if (facts.textContent !== words) facts.textContent = words;
      experts.min = String(offload.least_experts);
      experts.max = String(offload.all_experts);
      fill(policy, choices?.policy, offload.policy, "policy");
      fill(prefetcher, choices?.prefetcher, offload.prefetcher ?? "none", "prefetch");
      if (!root.contains(document.activeElement)) experts.value = String(offload.experts);
    },
  };
}

/**
 * @param {HTMLSelectElement} select
 * @param {{ name: string, changes: string }[] | undefined} choices
 * @param {string} now the name in use, with its arguments
 * @param {string} word
 */
function fill(select, choices, now, word) {
  const names = (choices ?? []).map(({ name }) => name);
  // one that was given arguments in Python is none of the plain names.
  if (!names.includes(now)) names.unshift(now);
  setOptions(select, names.map((name) => /** @type {[string, string]} */ ([name, `${word} ${name}`])));
  if (document.activeElement !== select) select.value = now;
  select.title = choices?.find(({ name }) => name === select.value)?.changes ?? "";
}
