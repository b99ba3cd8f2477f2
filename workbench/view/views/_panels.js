// @ts-check
/** Tabs, and the views in them: a view is made when its tab is first opened, and fed only while the tab is open. */
import { VIEWS } from "./_catalog.js";
import { h } from "./_dom.js";
import { createModel } from "./_model.js";

/** A view that takes long to draw is fed so seldom that it gets half of the time at most. */
const SHARE = 1;

/**
 * @typedef {import("./_model.js").Model} Model
 * @typedef {{ id: string, label: string, hint: string, views: string[] }} Tab
 * @typedef {{
 *   payload: (topic: string) => any,
 *   command: (command: { id: string, op: string, args: Record<string, any> }) => void,
 *   choose: (selection: Record<string, number>) => void,
 *   onOpen: () => void,
 * }} Source payload: what a view shows, null before there is anything; onOpen: other topics are needed now
 * @typedef {{
 *   bar: HTMLElement,
 *   body: HTMLElement,
 *   topics: () => string[],
 *   feed: (changed: Set<string>) => void,
 *   share: (trait: string, value: any) => void,
 *   open: (id: string, view?: string) => void,
 *   has: (id: string) => boolean,
 *   news: (id: string) => void,
 *   close: () => void,
 * }} Panels topics: those of the open tab; share: gives all views another value of a trait
 * @typedef {{ name: string, el: HTMLElement, model: Model, end: () => void, readyAt: number, timer: number }} Shown
 */

/** @param {Tab[]} tabs @param {Source} source @param {{ id: string, signal: AbortSignal }} page @returns {Panels} */
export function createPanels(tabs, source, { id, signal }) {
  const buttons = tabs.map((tab) => tabButton(tab, id));
  const bodies = tabs.map((tab) => h("div", { class: "moe-live-panel", id: `${id}-${tab.id}`, role: tabs.length > 1 ? "tabpanel" : undefined, "aria-labelledby": tabs.length > 1 ? `${id}-tab-${tab.id}` : undefined, "data-count": tab.views.length, hidden: true }));
  const bar = h("div", { class: "moe-live-tabs", role: "tablist", "aria-label": "Views of the run", hidden: tabs.length < 2 }, ...buttons);
  /** @type {Map<string, Shown>} */
  const shown = new Map();
  /** @type {Record<string, any>} traits that all views share */
  const traits = { selection: {}, run: null, acks: {} };
  let now = -1;
  let isSharing = false;
  const asked = { ...source, choose: (/** @type {Record<string, number>} */ selection) => void (isSharing || source.choose(selection)) };
  const open = (/** @type {number} */ at) => {
    if (at === now || tabs[at] === undefined) return;
    now = at;
    buttons.forEach((button, i) => mark(button, i === at));
    bodies.forEach((body, i) => void (body.hidden = i !== at));
    for (const name of tabs[at].views) if (!shown.has(name)) shown.set(name, show(name, bodies[at], traits, asked));
    source.onOpen();
    feed(new Set(tabs[at].views));
  };
  const feed = (/** @type {Set<string>} */ changed) => {
    for (const name of tabs[now]?.views ?? []) if (changed.has(name)) hand(shown.get(name), source);
  };
  const find = (/** @type {string} */ tab) => tabs.findIndex((other) => other.id === tab);
  wireTabs(bar, buttons, open, signal);
  return {
    bar,
    body: h("div", {}, ...bodies),
    topics: () => tabs[Math.max(0, now)]?.views ?? [],
    feed,
    share(trait, value) {
      traits[trait] = value;
      isSharing = true;
      for (const { model } of shown.values()) model.set(trait, value);
      isSharing = false;
    },
    open(tab, view) {
      open(tab === "" ? 0 : find(tab));
      if (view !== undefined) shown.get(view)?.el.scrollIntoView({ block: "start" });
    },
    has: (tab) => find(tab) >= 0,
    news(tab) {
      const at = find(tab);
      if (at >= 0 && at !== now) buttons[at].dataset.news = "";
    },
    close() {
      for (const { end, timer } of shown.values()) {
        clearTimeout(timer);
        end();
      }
    },
  };
}

/** @param {Tab} tab @param {string} id @returns {HTMLButtonElement} */
function tabButton({ id: tab, label, hint }, id) {
  return h("button", { type: "button", class: "moe-live-tab", id: `${id}-tab-${tab}`, role: "tab", title: hint, "aria-controls": `${id}-${tab}`, "aria-selected": "false", tabindex: -1 }, label);
}

/** @param {HTMLButtonElement} button @param {boolean} isOpen */
function mark(button, isOpen) {
  button.setAttribute("aria-selected", String(isOpen));
  button.tabIndex = isOpen ? 0 : -1;
  if (isOpen) delete button.dataset.news;
}

/** @param {HTMLElement} bar @param {HTMLButtonElement[]} buttons @param {(at: number) => void} open @param {AbortSignal} signal */
function wireTabs(bar, buttons, open, signal) {
  buttons.forEach((button, at) => button.addEventListener("click", () => open(at), { signal }));
  bar.addEventListener("keydown", (event) => {
    const at = buttons.findIndex((button) => button === event.target);
    /** @type {Record<string, number>} */
    const moves = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: buttons.length - 1 };
    if (at < 0 || !(event.key in moves)) return;
    event.preventDefault();
    const to = (moves[event.key] + buttons.length) % buttons.length;
    open(to);
    buttons[to].focus();
    buttons[to].scrollIntoView({ block: "nearest", inline: "nearest" });
  }, { signal });
}

/** @param {string} name @param {HTMLElement} body @param {Record<string, any>} traits @param {Source} source @returns {Shown} */
function show(name, body, traits, source) {
  const model = createModel({ ...traits, payload: source.payload(name), command: {} });
  model.on("change:command", () => source.command(model.get("command")));
  model.on("change:selection", () => source.choose(model.get("selection")));
  const el = h("div", {});
  body.append(el);
  return { name, el, model, end: VIEWS[name].render({ model, el }), readyAt: 0, timer: 0 };
}

/** @param {Shown | undefined} view @param {Source} source gives the view its newest payload, as often as it can draw it */
function hand(view, source) {
  if (view === undefined || view.timer !== 0) return;
  const wait = view.readyAt - performance.now();
  if (wait > 0) {
    view.timer = window.setTimeout(() => {
      view.timer = 0;
      hand(view, source);
    }, wait);
    return;
  }
  const began = performance.now();
  view.model.set("payload", source.payload(view.name));
  const ended = performance.now();
  view.readyAt = ended + SHARE * (ended - began);
}
