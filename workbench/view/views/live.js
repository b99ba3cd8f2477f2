// @ts-check
/**
 * The live workbench of one run: where it stands, every control, all views, and what was done.
 *
 * Traits: `api` (path of the hub's routes, "" to look for it), `token` ("" for the cookie), `xsrf` (name of the cookie
 * that goes back with every change), `run_id`, `views` (names, none for all), `rate` (frames a second at most, 10
 * when missing), `selection`; and for hosts that carry frames themselves `frame`, `watching`, `command`, `acks`.
 */
import { tabsOf } from "./_catalog.js";
import { clientOf } from "./_client.js";
import { createControls } from "./_controls.js";
import { button, h, uniqueId } from "./_dom.js";
import { keyList, listenToKeys } from "./_keys.js";
import { LIVE_STYLE } from "./_live_style.js";
import { createLog } from "./_log.js";
import { createNotices, noticesOf } from "./_notices.js";
import { createPanels } from "./_panels.js";
import { createSight } from "./_sight.js";
import { createStart } from "./_start.js";
import { createStatus } from "./_status.js";
import { styleElement } from "./_style.js";
import { watchTheme } from "./_theme.js";
import { actionOf, lifeOf, statusOf } from "./_words.js";

/** Frames a second that a view asks for, and for people who asked for less motion. */
const [RATE, CALM_RATE] = [10, 2];
/** A screen reader hears of the run this often at most [ms]. */
const SAID_EVERY = 5000;

/**
 * @typedef {import("./_model.js").Model} Model
 * @typedef {import("./_client.js").Client} Client
 * @typedef {ReturnType<typeof build>} Parts
 */

/** @param {{ model: Model, el: HTMLElement }} host @returns {() => void} cleanup */
function render({ model, el }) {
  let end = open(model, el);
  const again = () => {
    end();
    end = open(model, el);
  };
  const traits = ["api", "token", "run_id", "views"];
  for (const name of traits) model.on(`change:${name}`, again);
  return () => {
    for (const name of traits) model.off(`change:${name}`, again);
    end();
  };
}

/** @param {Model} model @param {HTMLElement} el @returns {() => void} */
function open(model, el) {
  const abort = new AbortController();
  const client = clientOf(model);
  const parts = build(model, client, model.get("views") ?? [], abort.signal);
  el.append(parts.root);
  watchTheme(parts.root, () => {}, abort.signal);
  const leave = client === null ? () => {} : follow(parts, client, model, abort.signal);
  return () => {
    abort.abort();
    leave();
    parts.panels.close();
    parts.root.remove();
  };
}

/** @param {Model} model @param {Client | null} client @param {string[]} views @param {AbortSignal} signal */
function build(model, client, views, signal) {
  const id = uniqueId("live");
  const tabs = tabsOf(views);
  const status = createStatus();
  const act = (/** @type {string} */ op, /** @type {Record<string, any>} */ args = {}) => void client?.commands.send(op, args);
  const controls = createControls({ act, signal, id });
  const panels = createPanels(tabs, sourceOf(model, client, (selection) => panels.share("selection", selection), () => refresh()), { id, signal });
  const log = createLog(signal);
  const start = createStart(() => client?.retry(), signal);
  const [notices, voice] = [h("div", { class: "moe-live-notices" }), h("div", { class: "moe-hidden", "aria-live": "polite" })];
  const help = h("div", { class: "moe-live-start", hidden: true }, h("h3", {}, "Keys"), keyList());
  const ask = button("?", { "aria-label": "Keys", "aria-expanded": "false", title: "Which keys do what (?)" });
  // side by side on any width: a lone mark on a line of its own reads as a slip.
  const last = h("span", { class: "moe-live-last" });
  controls.more.replaceWith(last);
  last.append(controls.more, ask);
  const body = h("div", { hidden: true }, status.root, controls.bar, controls.extra, help, notices, panels.bar, panels.body, log.root);
  const root = h("section", { class: "moe-view moe-live", "data-view": "live", "data-lm-suppress-shortcuts": true, "aria-label": "Live run" });
  root.append(styleElement(LIVE_STYLE), start.root, body, voice);
  const showHelp = () => {
    help.hidden = !help.hidden;
    ask.setAttribute("aria-expanded", String(!help.hidden));
  };
  ask.addEventListener("click", showHelp, { signal });
  listenToKeys(root, { playPause: controls.playPause, step: controls.step, undo: controls.undo, help: showHelp }, signal);
  let refresh = () => {};
  return { root, body, start, status, controls, panels, log, voice, notices: createNotices(notices), act, onWant: (/** @type {() => void} */ call) => void (refresh = call) };
}

/**
 * @param {Model} model @param {Client | null} client @param {(selection: Record<string, number>) => void} share
 * @param {() => void} onOpen
 * @returns {import("./_panels.js").Source}
 */
function sourceOf(model, client, share, onOpen) {
  return {
    payload: (topic) => client?.topics.get(topic) ?? null,
    command: ({ id, op, args }) => void client?.commands.send(op, args ?? {}, id),
    choose(selection) {
      share(selection);
      model.set("selection", selection);
      model.save_changes();
    },
    onOpen,
  };
}

/** @param {Parts} parts @param {Client} client @param {Model} model @param {AbortSignal} signal @returns {() => void} */
function follow(parts, client, model, signal) {
  const { panels, status, controls } = parts;
  const sight = createSight(parts.root, () => seat.update(want()), signal);
  const want = () => ({ topics: panels.topics(), rate: sight.isSeen() ? (sight.isCalm() ? CALM_RATE : model.get("rate") || RATE) : 0 });
  const draw = () => {
    const state = client.topics.get("state");
    const { newest } = client.topics;
    status.tick({ ...client.connection, newest: newest().time, actor: client.commands.actor() });
    parts.start.show(client.connection, state !== null);
    controls.allow(client.connection.role !== "viewer");
    if (state === null) return;
    parts.notices(noticesOf(state, client.commands.list(), client.commands.actor(), { act: parts.act, open: panels.open, hasTab: panels.has }));
  };
  const onState = () => {
    const state = client.topics.get("state");
    if (state === null) return;
    if (parts.body.hidden) {
      parts.body.hidden = false;
      panels.open("");
    }
    status.show(state);
    controls.show(state);
    panels.share("run", state);
  };
  const onRecords = () => {
    const records = client.commands.list();
    controls.records(records);
    parts.log.show(records, client.topics.get("state"));
    panels.share("acks", Object.fromEntries(records.map((record) => [record.id, record])));
    const last = records[records.length - 1];
    if (last?.op === "swap_router" && last.status === "applied") panels.news("routers");
    draw();
  };
  const say = speaker(parts.voice, client, signal);
  const seat = client.join({
    want: { topics: [], rate: 0 },
    onTopics(changed) {
      if (changed.has("state")) onState();
      panels.feed(changed);
      draw();
      say();
    },
    onRecords,
    onConnection: draw,
  });
  const onSelection = () => panels.share("selection", model.get("selection") ?? {});
  const onRate = () => seat.update(want());
  model.on("change:selection", onSelection);
  model.on("change:rate", onRate);
  parts.onWant(() => seat.update(want()));
  const timer = setInterval(draw, 1000);
  onState();
  onRecords();
  panels.feed(new Set(panels.topics()));
  seat.update(want());
  return () => {
    clearInterval(timer);
    model.off("change:selection", onSelection);
    model.off("change:rate", onRate);
    seat.leave();
  };
}

/** Tells a screen reader how the run and the last own command stand, when that has changed, and not too often. */
function speaker(/** @type {HTMLElement} */ voice, /** @type {Client} */ client, /** @type {AbortSignal} */ signal) {
  let [said, timer] = ["", 0];
  const tell = () => {
    timer = 0;
    const { status = "" } = client.topics.get("state") ?? {};
    const last = client.commands.list().filter(({ isOwn }) => isOwn).pop();
    const text = [statusOf(status).word, last === undefined ? "" : `${actionOf(last)} ${lifeOf(last)}`].filter(Boolean).join(". ");
    if (text === said) return;
    said = voice.textContent = text;
    timer = window.setTimeout(tell, SAID_EVERY);
  };
  signal.addEventListener("abort", () => clearTimeout(timer));
  return () => {
    if (timer === 0) tell();
  };
}

export default { render };
