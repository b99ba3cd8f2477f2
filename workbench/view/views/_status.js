// @ts-check
/** The header of a live run: what it is, how far it is, and whether what is shown is what happens now. */
import { h } from "./_dom.js";
import { icon, setIcon } from "./_icons.js";
import { duration, number } from "./_number.js";
import { argumentsText, describeRun, speedOf, statusOf, timeOfDay } from "./_words.js";

/** A run that trains and has said nothing for so long is shown as stale [s]. */
const STALE_SECONDS = 5;
/** The time left is told from the pace of the last so many seconds. */
const PACE_SECONDS = 20;

const SOURCES = {
  Step: "Optimiser steps taken, of those it was asked to take; counted by the trainer.",
  Loss: "Training loss of the newest step, mean over its tokens, in nats; measured by the trainer.",
  Speed: "Training tokens a second over the last steps; measured by the trainer.",
  Router: "What chooses the experts of each token now, with its arguments.",
  "Time left": "Steps that are left, at the pace of the last twenty seconds; estimated on this page.",
};

const PLACES = { notebook: "in a notebook", "command line": "from the command line", child: "on this server" };

/** @typedef {{ root: HTMLElement, show: (state: any) => void, tick: (link: Link) => void, isStale: () => boolean }} Status */
/** @typedef {{ phase: string, way: string, retryAt: number, newest: number, actor: string, role: string }} Link newest: when the newest frame was made [s since the epoch] */

/** @param {HTMLElement | Text} node @param {string} text writes only what has changed */
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** @param {string} tone @returns {{ root: HTMLElement, set: (name: import("./_icons.js").IconName, text: string, tone: string) => void }} */
function chip(tone) {
  const [picture, words] = [icon("clock"), h("span", {})];
  const root = h("span", { class: "moe-live-chip", "data-tone": tone }, picture, words);
  return {
    root,
    set(name, text, newTone) {
      setIcon(picture, name);
      setText(words, text);
      if (root.dataset.tone !== newTone) root.dataset.tone = newTone;
    },
  };
}

function layout() {
  const title = h("h2", { class: "moe-live-title" }, "Live run");
  const status = chip("quiet");
  const link = chip("quiet");
  link.root.classList.add("moe-live-link");
  const badge = h("span", { class: "moe-badge", hidden: true, title: "These numbers were not measured on a model that trains" });
  const about = h("p", { class: "moe-live-about" });
  /** @type {Record<string, { dt: HTMLElement, value: HTMLElement, unit: HTMLElement, cell: HTMLElement }>} */
  const cells = {};
  const list = h("dl", { class: "moe-live-stats" });
  for (const [name, source] of Object.entries(SOURCES)) {
    const [dt, value, unit] = [h("dt", {}, name), h("span", {}, "–"), h("small", {})];
    const cell = h("div", { title: source, "data-fact": name }, dt, h("dd", {}, value, " ", unit));
    cells[name] = { dt, value, unit, cell };
    list.append(cell);
  }
  const fill = h("i", {});
  const progress = h("div", { class: "moe-live-progress", role: "progressbar", "aria-label": "Steps taken", "aria-valuemin": 0, hidden: true }, fill);
  const head = h("header", { class: "moe-live-head" }, h("div", { class: "moe-live-top" }, title, status.root, badge, link.root, about), list);
  return { root: h("div", {}, head, progress), title, status, link, badge, about, cells, progress, fill };
}

/** @returns {Status} */
export function createStatus() {
  const ui = layout();
  const pace = createPace();
  /** @type {any} */
  let state = null;
  let isStale = false;
  return {
    root: ui.root,
    isStale: () => isStale,
    show(next) {
      state = next;
      pace.add(state);
      showRun(ui, state);
      showNumbers(ui, state, pace.secondsLeft(state));
    },
    tick(link) {
      isStale = showLink(ui.link, link, state);
    },
  };
}

/** @param {ReturnType<typeof layout>} ui @param {any} state */
function showRun(ui, state) {
  const { word, icon: picture, meaning } = statusOf(state.status);
  const isCare = ["crashed", "lost"].includes(state.status);
  ui.status.set(picture, word, isCare ? "care" : state.status === "running" ? "go" : "plain");
  ui.status.root.title = meaning;
  setText(ui.title, state.title || `Run ${String(state.id ?? "").slice(0, 8)}`);
  const since = state.started_at ? ` · since ${timeOfDay(state.started_at)}` : "";
  const by = state.owner ? ` · by ${state.owner}` : "";
  const where = state.kind in PLACES ? `${by === "" ? " ·" : ""} ${PLACES[/** @type {keyof typeof PLACES} */ (state.kind)]}` : "";
  setText(ui.about, describeRun(state) + by + where + since);
  setText(ui.badge, state.badge ?? "");
  ui.badge.hidden = !state.badge;
}

/** @param {ReturnType<typeof layout>} ui @param {any} state @param {number} secondsLeft */
function showNumbers(ui, state, secondsLeft) {
  const whole = (/** @type {number} */ value) => Math.round(value).toLocaleString("en-US");
  const set = (/** @type {string} */ name, /** @type {string} */ value, /** @type {string} */ unit) => {
    setText(ui.cells[name].value, value);
    setText(ui.cells[name].unit, unit);
  };
  const target = state.target_step ?? 0;
  set("Step", whole(state.step ?? 0), target > 0 ? `of ${whole(target)}` : "");
  set("Loss", Number.isFinite(state.loss) ? number(state.loss, 4) : "–", Number.isFinite(state.loss) ? "nat/token" : "");
  set("Speed", ...speedOf(state.status === "running" ? state.tokens_per_second : 0));
  const args = argumentsText(state.router_args);
  set("Router", state.router ?? "–", args);
  ui.cells.Router.cell.title = `${SOURCES.Router}${args ? ` Now: ${state.router} with ${args}.` : ""}`;
  set("Time left", Number.isFinite(secondsLeft) ? duration(secondsLeft).replace(/\.\d s/, " s") : "–", "");
  ui.progress.hidden = !(target > 0);
  const share = target > 0 ? Math.min(1, (state.step ?? 0) / target) : 0;
  ui.fill.style.transform = `scaleX(${share})`;
  ui.progress.setAttribute("aria-valuemax", String(target));
  ui.progress.setAttribute("aria-valuenow", String(Math.min(target, state.step ?? 0)));
}

/** @param {ReturnType<typeof chip>} chip @param {Link} link @param {any} state @returns {boolean} what is shown is old, and should not be */
function showLink(chip, { phase, way, retryAt, newest, actor, role }, state) {
  const isOver = state !== null && statusOf(state.status).isOver === true;
  const age = Date.now() / 1000 - newest;
  const clock = newest > 0 ? timeOfDay(newest) : "";
  if (phase !== "live") {
    const wait = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
    const next = phase === "waiting" ? `next try in ${wait} s` : "connecting";
    const text = newest > 0 ? `Showing data from ${clock}; ${next}` : phase === "waiting" ? `Not connected; ${next}` : "Connecting";
    chip.set(newest > 0 ? "warning" : "clock", text, newest > 0 && !isOver ? "care" : "quiet");
    return newest > 0 && !isOver;
  }
  if (state?.status === "running" && newest > 0 && age > STALE_SECONDS) {
    chip.set("warning", `Showing data from ${clock}; the run is silent`, "care");
    return true;
  }
  const driver = state?.driver ? (state.driver === actor ? " · you drive" : ` · driven by ${state.driver}`) : "";
  const watching = role === "viewer" ? " · you watch" : "";
  const words = isOver ? `Recorded; last data from ${clock}` : `Live${way === "comm" ? " through the kernel" : ""}`;
  chip.set("signal", words + (isOver ? "" : driver + watching), "quiet");
  return false;
}

/** How fast the steps come, from what this page has seen of them. */
function createPace() {
  /** @type {{ at: number, step: number }[]} */
  let seen = [];
  return {
    /** @param {any} state */
    add({ status, step }) {
      const at = Date.now() / 1000;
      const last = seen[seen.length - 1];
      if (status !== "running" || (last !== undefined && step < last.step)) seen = [];
      if (status === "running" && step !== seen[seen.length - 1]?.step) seen.push({ at, step });
      seen = seen.filter((entry) => at - entry.at < PACE_SECONDS);
    },
    /** @param {any} state @returns {number} [s], NaN when nobody can tell */
    secondsLeft({ status, step, target_step: target }) {
      const [first, last] = [seen[0], seen[seen.length - 1]];
      if (status !== "running" || !(target > step) || first === undefined || last.step === first.step) return NaN;
      return ((target - step) * (last.at - first.at)) / (last.step - first.step);
    },
  };
}
