// @ts-check
/** The control bar of a live run: every command one press away, with what it will do and when. */
import { copyButton } from "./_copy.js";
import { h, setOptions } from "./_dom.js";
import { createExtra } from "./_extra.js";
import { setIcon } from "./_icons.js";
import { allow, askOnce, iconButton, isAllowed } from "./_press.js";
import { actionOf, lifeOf, parseArguments, statusOf } from "./_words.js";

/**
 * @typedef {import("./_commands.js").CommandRecord} CommandRecord
 * @typedef {import("./_extra.js").Act} Act
 * @typedef {{
 *   bar: HTMLElement,
 *   more: HTMLElement,
 *   extra: HTMLElement,
 *   show: (state: any) => void,
 *   allow: (mayDrive: boolean) => void,
 *   records: (records: CommandRecord[]) => void,
 *   playPause: () => void,
 *   step: () => void,
 *   undo: () => void,
 * }} Controls
 */

/** @param {{ records: CommandRecord[] }} memory @param {AbortSignal} signal */
function layout(memory, signal) {
  const play = iconButton("pause", "Pause", { class: "moe-button moe-main" });
  const step = iconButton("step", "Step", { title: "Take one step, then pause (key .)" });
  const stop = iconButton("stop", "Stop", { title: "End the run; what was recorded stays" });
  const router = h("select", { class: "moe-select", "aria-label": "Router to swap to" });
  const swap = iconButton("swap", "Swap");
  const when = h("small", {});
  swap.element.append(when);
  const undo = iconButton("undo", "Undo");
  const more = iconButton("down", "More", { "aria-expanded": "false" });
  const life = h("p", { class: "moe-live-life" });
  const copy = copyButton("Copy as Python", () => lastOf(memory)?.python ?? "", signal);
  copy.title = "The line of Python that does what you just did";
  const means = h("p", { class: "moe-live-means", hidden: true });
  const gap = () => h("span", { class: "moe-live-gap", "aria-hidden": "true" });
  const bar = h("div", { class: "moe-live-bar", role: "group", "aria-label": "Controls of the run" });
  // On a narrow page the first part stays in sight, and the second goes with the page.
  const first = h("div", { class: "moe-live-first" }, play.element, step.element, stop.element);
  const second = h("div", { class: "moe-live-second" }, gap(), router, swap.element, gap(), undo.element, more.element, life, copy, means);
  bar.append(first, second);
  return { bar, play, step, stop, router, swap, when, undo, more, life, copy, means };
}

/** @param {{ act: Act, signal: AbortSignal, id: string }} options @returns {Controls} */
export function createControls({ act, signal, id }) {
  /** @type {{ state: any, records: CommandRecord[], isChosen: boolean, problem: string, mayDrive: boolean }} */
  const memory = { state: null, records: [], isChosen: false, problem: "", mayDrive: true };
  const ui = layout(memory, signal);
  const extra = createExtra({ act, signal, id: `${id}-extra` });
  ui.more.element.setAttribute("aria-controls", `${id}-extra`);
  const on = (/** @type {HTMLElement} */ element, /** @type {string} */ type, /** @type {() => void} */ listener) => element.addEventListener(type, listener, { signal });
  const redraw = () => {
    draw(ui, memory);
    if (ui.bar.hidden) extra.root.hidden = true;
  };
  const playPause = () => void (memory.state !== null && isAllowed(ui.play.element) && act(memory.state.status === "running" ? "pause" : "resume"));
  const step = () => void act("step", { count: extra.stepCount() });
  const undo = () => void (memory.state?.can_undo && act("undo"));
  on(ui.play.element, "click", playPause);
  on(ui.step.element, "click", step);
  on(ui.undo.element, "click", undo);
  askOnce(ui.stop, "Press again to end it", () => act("stop"), signal);
  for (const type of ["input", "change"]) {
    on(ui.router, type, () => {
      memory.isChosen = ui.router.value !== memory.state?.router;
      redraw();
    });
  }
  on(ui.swap.element, "click", () => {
    if (!isAllowed(ui.swap.element)) return;
    memory.problem = swap(ui.router.value, extra, act);
    memory.isChosen = false;
    redraw();
  });
  on(ui.more.element, "click", () => {
    extra.root.hidden = !extra.root.hidden;
    ui.more.element.setAttribute("aria-expanded", String(!extra.root.hidden));
    ui.more.words.textContent = extra.root.hidden ? "More" : "Less";
  });
  return {
    bar: ui.bar,
    more: ui.more.element,
    extra: extra.root,
    show(state) {
      memory.state = state;
      redraw();
      extra.show(state);
    },
    allow(mayDrive) {
      memory.mayDrive = mayDrive;
      redraw();
    },
    records(records) {
      memory.records = records.filter(({ isOwn }) => isOwn);
      memory.problem = "";
      redraw();
    },
    playPause, step, undo,
  };
}

/** @param {string} name @param {ReturnType<typeof createExtra>} extra @param {Act} act @returns {string} what is wrong with the arguments */
function swap(name, extra, act) {
  try {
    act("swap_router", { name, args: parseArguments(extra.argumentsText()), ...extra.swapOptions() });
    return "";
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** @param {ReturnType<typeof layout>} ui @param {{ state: any, records: CommandRecord[], isChosen: boolean, problem: string, mayDrive: boolean }} memory */
function draw(ui, { state, records, isChosen, problem, mayDrive }) {
  if (state === null) return;
  ui.bar.hidden = statusOf(state.status).isOver === true || !mayDrive;
  const pending = (/** @type {string[]} */ ops) => records.some(({ op, status }) => ops.includes(op) && (status === "sent" || status === "accepted"));
  drawPlay(ui.play, state.status, pending(["pause"]), pending(["resume"]));
  drawRouters(ui, state, isChosen);
  const undoing = state.can_undo ? `Undo: ${state.can_undo}` : "Undo";
  if (ui.undo.words.textContent !== undoing) ui.undo.words.textContent = undoing;
  allow(ui.undo.element, Boolean(state.can_undo));
  ui.undo.element.title = state.can_undo ? `Take back: ${state.can_undo} (key u)` : "Nothing to take back yet";
  const last = lastOf({ records });
  drawLife(ui.life, last, problem);
  ui.copy.hidden = last === null || last.python === "" || problem !== "";
}

/** @param {{ records: CommandRecord[] }} memory @returns {CommandRecord | null} the newest of this page's own */
function lastOf({ records }) {
  return records[records.length - 1] ?? null;
}

/** @param {ReturnType<typeof iconButton>} play @param {string} status @param {boolean} isPausing @param {boolean} isResuming */
function drawPlay({ element, picture, words }, status, isPausing, isResuming) {
  const isRunning = status === "running";
  const text = isPausing && isRunning ? "Pausing…" : isResuming && !isRunning ? "Starting…" : isRunning ? "Pause" : status === "paused" ? "Resume" : "Train";
  if (words.textContent !== text) words.textContent = text;
  setIcon(picture, isRunning ? "pause" : "play");
  element.title = isRunning ? "Stop moving; the model keeps everything (Space)" : "Go on training (Space)";
  allow(element, status !== "starting");
}

/** @param {ReturnType<typeof layout>} ui @param {any} state @param {boolean} isChosen */
function drawRouters(ui, state, isChosen) {
  const routers = state.choices?.router ?? [];
  setOptions(ui.router, routers.map((/** @type {any} */ { name, changes }) => [name, changes ? `${name} — ${changes}` : name]));
  if (!isChosen && state.router && ui.router.value !== state.router) ui.router.value = state.router;
  ui.router.hidden = ui.swap.element.hidden = routers.length === 0;
  const at = `applies at step ${((state.step ?? 0) + 1).toLocaleString("en-US")}`;
  if (ui.when.textContent !== at) ui.when.textContent = at;
  // The number changes ten times a second: whoever hears the page is told the rule instead.
  ui.swap.element.setAttribute("aria-label", `Swap to ${ui.router.value}, applies at the next step`);
  allow(ui.swap.element, isChosen);
  ui.swap.element.title = isChosen ? "The new router is tried first; if it fails, the old one stays" : "Choose another router first";
  const chosen = routers.find((/** @type {any} */ { name }) => name === ui.router.value);
  ui.means.hidden = !isChosen || !chosen?.changes;
  const meaning = isChosen && chosen ? `${chosen.name}: ${chosen.changes}. The new router is tried on a few tokens first; if it fails, ${state.router} stays.` : "";
  if (ui.means.textContent !== meaning) ui.means.textContent = meaning;
}

/** @param {HTMLElement} node @param {CommandRecord | null} record @param {string} problem */
function drawLife(node, record, problem) {
  const status = problem !== "" ? "refused" : (record?.status ?? "");
  const [what, life] = problem !== "" ? ["Not sent", problem] : record === null ? ["", ""] : [actionOf(record), lifeOf(record)];
  if (node.dataset.status === status && node.textContent === `${what}${life}`) return;
  node.dataset.status = status;
  node.replaceChildren(...(what === "" ? [] : [h("b", {}, what), h("span", {}, life)]));
}
