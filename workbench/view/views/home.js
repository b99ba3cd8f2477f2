// @ts-check
/**
 * The runs of a server: start one, open one, put several side by side. The run that is open is in the page's address.
 *
 * Traits: `api` (path of the hub's routes, "" to look for it), `token` ("" for the cookie), `xsrf` (name of the cookie
 * that goes back with every change), `run_id` (the run that is open, "" for the list), `views` (names, none for all).
 */
import { createCompare } from "./_compare.js";
import { copyButton } from "./_copy.js";
import { button, h } from "./_dom.js";
import { HOME_STYLE } from "./_home_style.js";
import { lessonCard } from "./_lessons.js";
import { LIVE_STYLE } from "./_live_style.js";
import { createModel } from "./_model.js";
import { createNotices } from "./_notices.js";
import { serverOf } from "./_runs.js";
import { styleElement } from "./_style.js";
import { watchTheme } from "./_theme.js";
import { default as live } from "./live.js";
import { default as runTable } from "./run_table.js";

/** A server that has said nothing for so long is spoken of [ms]. */
const PATIENCE = 5000;
const NOWHERE = "This page sees no server of the workbench. Open it with `workbench app`, or from JupyterLab.";

/**
 * @typedef {import("./_model.js").Model} Model
 * @typedef {import("./_runs.js").Server} Server
 * @typedef {{ root: HTMLElement, close: () => void }} Page
 */

/** @param {{ model: Model, el: HTMLElement }} host @returns {() => void} cleanup */
function render({ model, el }) {
  const abort = new AbortController();
  const root = h("div", { class: "moe-view moe-home", "data-view": "home" }, styleElement(LIVE_STYLE + HOME_STYLE));
  el.append(root);
  watchTheme(root, () => {}, abort.signal);
  /** @type {Page | null} */
  let page = null;
  let shown = "";
  const show = (/** @type {string} */ id) => {
    if (page !== null && id === shown) return;
    page?.close();
    page?.root.remove();
    shown = id;
    page = id === "" ? allRuns(model, open) : oneRun(model, id, open);
    root.append(page.root);
  };
  const open = (/** @type {string} */ id) => {
    history.pushState(null, "", addressOf(id));
    model.set("run_id", id);
    model.save_changes();
    show(id);
    root.scrollIntoView({ block: "start" });
  };
  const given = () => model.get("run_id") ?? "";
  const onModel = () => show(given());
  model.on("change:run_id", onModel);
  window.addEventListener("popstate", () => show(runInAddress()), { signal: abort.signal });
  show(given() || runInAddress());
  // A shell that has a theme of its own can follow the reader's system.
  model.set("prefers_dark", matchMedia("(prefers-color-scheme: dark)").matches);
  model.save_changes();
  return () => {
    model.off("change:run_id", onModel);
    abort.abort();
    page?.close();
    root.remove();
  };
}

/** @returns {string} */
function runInAddress() {
  return new URLSearchParams(location.search).get("run") ?? "";
}

/** @param {string} id @returns {string} address of a run on this page, or of the list */
function addressOf(id) {
  const address = new URL(location.pathname, location.href);
  if (id !== "") address.searchParams.set("run", id);
  return address.href;
}

/** @param {Model} given @param {string} id @param {(id: string) => void} open @returns {Page} */
function oneRun(given, id, open) {
  const abort = new AbortController();
  const back = button("← All runs");
  back.addEventListener("click", () => open(""), { signal: abort.signal });
  const host = h("div", {});
  const crumbs = h("nav", { class: "moe-live-crumbs", "aria-label": "Page" }, back, h("span", { class: "moe-live-row" }, copyButton("Copy link to this run", () => addressOf(id), abort.signal)));
  const own = Object.fromEntries(["api", "token", "xsrf", "views"].map((name) => [name, given.get(name)]));
  const model = createModel({ ...own, run_id: id, selection: {} });
  const end = live.render({ model, el: host });
  return {
    root: h("div", { class: "moe-live-one" }, crumbs, host),
    close() {
      abort.abort();
      end();
    },
  };
}

/** @param {Model} model @param {(id: string) => void} open @returns {Page} */
function allRuns(model, open) {
  const abort = new AbortController();
  const server = serverOf(model);
  const notices = h("div", { class: "moe-live-notices" });
  const lessons = createLessons(server, open, abort.signal);
  const runs = createRuns(open);
  const compare = createCompare(abort.signal);
  const root = h("div", { class: "moe-live-list" }, h("h2", {}, "Runs"), h("p", { class: "moe-lead" }, "Start a model and watch its experts share the work, or open a run that is there already."), notices, lessons, runs.root, compare.root);
  const say = createNotices(notices);
  if (server === null) {
    say([{ key: "nowhere", tone: "care", text: NOWHERE }]);
    return { root, close: () => abort.abort() };
  }
  const began = Date.now();
  /** @type {import("./_line.js").Connection | null} */
  let connection = null;
  let hasList = false;
  const speak = () => {
    const { problem, phase } = connection ?? { problem: null, phase: "connecting" };
    const isLate = phase !== "live" && Date.now() - began > PATIENCE;
    const text = problem !== null ? `${problem.cause} ${problem.fix}` : `The server has not answered yet${hasList ? "; this list may be old" : ""}.`;
    say(problem !== null || isLate ? [{ key: "server", tone: "care", text, presses: [["Try again now", line.retry]] }] : []);
  };
  const line = server.listen((list) => {
    hasList = true;
    runs.show(list);
    compare.show(list);
  }, (news) => {
    connection = news;
    queueMicrotask(speak);
  });
  const timer = setInterval(speak, 1000);
  return {
    root,
    close() {
      abort.abort();
      clearInterval(timer);
      line.close();
      runs.close();
    },
  };
}

/** @param {(id: string) => void} open */
function createRuns(open) {
  const host = h("div", { class: "moe-table-host", hidden: true });
  const empty = h("p", { class: "moe-quiet" }, "No run yet. Start one above, or train in a notebook with session.train(..., background=True): it appears here by itself.");
  const model = createModel({ runs: [], run_id: "", selection: {}, payload: null });
  const onChoice = () => {
    const id = model.get("run_id") || model.get("selection")?.run || "";
    if (id !== "") open(id);
  };
  model.on("change:run_id", onChoice);
  const end = runTable.render({ model, el: host });
  return {
    root: h("section", { class: "moe-block" }, host, empty),
    /** @param {any[]} runs */
    show(runs) {
      host.hidden = runs.length === 0;
      empty.hidden = runs.length > 0;
      model.set("runs", runs);
    },
    close: end,
  };
}

/** @param {Server | null} server @param {(id: string) => void} open @param {AbortSignal} signal @returns {HTMLElement} */
function createLessons(server, open, signal) {
  const list = h("ul", { class: "moe-lessons" });
  const root = h("section", { class: "moe-block", hidden: true }, h("h3", {}, "Start"), list);
  const start = async (/** @type {string} */ preset, /** @type {Record<string, any>} */ options) => {
    const { code, body } = await /** @type {Server} */ (server).request("runs", { method: "POST", body: { preset, options } });
    if (code !== 201) return body.reason ?? body.message ?? `The server answered ${code}.`;
    open(body.id);
    return "";
  };
  const link = new URLSearchParams(location.search);
  const fill = async () => {
    const { code, body } = await /** @type {Server} */ (server).request("presets");
    if (code !== 200 || signal.aborted || body.presets.length === 0) return;
    const cards = body.presets.map((/** @type {any} */ lesson) => {
      const isLinked = link.get("preset") === lesson.id;
      const card = lessonCard(lesson, isLinked ? Object.fromEntries(link) : {}, start, signal);
      if (isLinked) card.open();
      return { card, isLinked };
    });
    cards.sort((/** @type {any} */ a, /** @type {any} */ b) => Number(b.isLinked) - Number(a.isLinked));
    list.replaceChildren(...cards.map((/** @type {any} */ { card }) => card.root));
    root.hidden = false;
  };
  // Without presets the list of runs still works, and the connection says what is wrong.
  if (server !== null) fill().catch(() => {});
  return root;
}

export default { render };
