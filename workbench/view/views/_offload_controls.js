// @ts-check
/** Where the experts of a run are while it writes: how many stay in memory, who leaves, who is fetched early. */
import { button, h, setOptions } from "./_dom.js";
import { grouped, listed, percent, plural } from "./_number.js";
import { pagesWords, slots } from "./_offload.js";

/** @typedef {import("./_extra.js").Act} Act */

/** @param {string} tier @param {string} near the nearest tier that there is: the host where there is no device @returns {string} */
function placeOf(tier, near) {
  return { device: "on the device", host: near === "host" ? "in memory" : "in the host's memory", disk: "on disk" }[tier] ?? tier;
}

/** @param {{ act: Act, signal: AbortSignal }} options */
export function createOffloadControls({ act, signal }) {
  const room = h("input", { class: "moe-live-input moe-live-count", type: "number", min: 1, step: 1 });
  const unit = h("span", {});
  const set = button("Set");
  const policy = h("select", { class: "moe-select", "aria-label": "Cache policy" });
  const prefetcher = h("select", { class: "moe-select", "aria-label": "Prefetcher" });
  const facts = h("div", {});
  const row = h("div", { class: "moe-live-row" }, h("label", { class: "moe-live-tick" }, "Room for ", room, unit), set, policy, prefetcher);
  const root = h("fieldset", { hidden: true }, h("legend", {}, "Offload"), facts, row);
  const on = (/** @type {HTMLElement} */ element, /** @type {string} */ type, /** @type {() => void} */ listener) => element.addEventListener(type, listener, { signal });
  const resize = () => void (room.value !== "" && room.reportValidity() && act("set_cache_size", { slots: Number(room.value) }));
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
      const words = sentences(offload);
      if (facts.textContent !== words.join("")) facts.replaceChildren(...words.map((line) => h("p", {}, line)));
      const name = `${offload.pages_each === null ? "experts" : "pages"} ${placeOf(offload.near, offload.near)}`;
      if (unit.textContent !== name) unit.textContent = name;
      room.min = String(offload.least_slots);
      room.max = String(offload.most_slots);
      fill(policy, choices?.policy, offload.policy, "policy");
      fill(prefetcher, choices?.prefetcher, offload.prefetcher ?? "none", "prefetch");
      if (!root.contains(document.activeElement)) room.value = String(offload.slots);
    },
  };
}

/**
 * How it stands: the room and the budget of each tier, who is where, and how often that was of use.
 * @param {any} offload
 * @returns {string[]}
 */
function sentences(offload) {
  const { near, slots: held, all_slots: all, pages_each: pagesEach, experts, room, budgets } = offload;
  const out = [`There is room for ${grouped(held)} of ${slots(all, pagesEach)} ${placeOf(near, near)}, in a budget of ${budgets[near]} for experts and KV cache.`];
  if (near === "device" && "host" in room) {
    const kept = offload.is_inclusive ? "keeps" : "gives away";
    out.push(`The host has room for ${slots(room.host, pagesEach)} in ${budgets.host}, and ${kept} what goes up; its policy is ${offload.host_policy}.`);
  }
  if (pagesEach !== null) out.push(`A slot holds a page: ${pagesWords(pagesEach)}, and is where the slowest of them lies.`);
  const tiers = Object.keys(experts).filter((tier) => tier === "disk" || tier in room);
  const places = tiers.map((tier, i) => `${i === 0 ? `${plural(experts[tier], "expert")} ${experts[tier] === 1 ? "is" : "are"}` : grouped(experts[tier])} ${placeOf(tier, near)}`);
  out.push(`Now ${listed(places)}.`);
  if (typeof offload.hit_rate === "number") out.push(`${percent(offload.hit_rate)} of ${plural(offload.requests, "request")} found theirs ${placeOf(near, near)}.`);
  if (offload.host_computed !== null) out.push(`${plural(offload.host_computed, "request")} ${offload.host_computed === 1 ? "was" : "were"} computed in the host.`);
  const { precision } = offload;
  return [...out, `${precision.slice(0, 1).toUpperCase()}${precision.slice(1)}.`, "A change acts between two tokens."];
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
