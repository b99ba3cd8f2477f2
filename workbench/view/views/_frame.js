// @ts-check
/** What every view has: title, sentence, controls, picture, notes on sampling, and a table of the same numbers. */
import { button, h, tableElement, uniqueId } from "./_dom.js";
import { decode } from "./_payload.js";
import { styleElement } from "./_style.js";
import { resolved, watchTheme } from "./_theme.js";

/**
 * @typedef {import("./_payload.js").Payload} Payload
 * @typedef {{ caption: string, head: string[], rows: (string | number)[][] }} Table
 * @typedef {Record<string, any>} RunState what a run says of itself: id, status, step, steering, choices and more
 * @typedef {Record<string, any>} CommandRecord what became of a command: id, op, args, status, step, reason
 * @typedef {{
 *   update: (payload: Payload) => void,
 *   redraw: () => void,
 *   table: () => Table,
 *   select?: (selection: Record<string, number>) => void,
 *   run?: (state: RunState | null) => void,
 *   acks?: (records: Record<string, CommandRecord>) => void,
 *   runs?: (runs: RunState[]) => void,
 * }} Part redraw: after a change of theme; select: the reader chose something in another view; run, acks, runs: news of
 *   the run behind the view, of the commands sent to it, and of all runs there are
 * @typedef {{
 *   root: HTMLElement,
 *   toolbar: HTMLElement,
 *   body: HTMLElement,
 *   signal: AbortSignal,
 *   colour: (name: string) => string,
 *   isDark: () => boolean,
 *   lead: (text: string) => void,
 *   say: (text: string) => void,
 *   choose: (selection: Record<string, any>) => void,
 *   chooseRun: (id: string) => void,
 *   command: (op: string, args?: Record<string, any>) => string,
 *   run: () => RunState | null,
 *   isLive: () => boolean,
 *   refreshTable: () => void,
 * }} Frame lead: the sentence under the title; say: to a screen reader; choose: tell the host and the other views;
 *   command: send one to the run, get its id; isLive: a run is there that takes commands
 * @typedef {{ name: string, title: string, style?: string, hasControls?: boolean, create: (frame: Frame) => Part }} View
 *   hasControls: the view stays open without numbers, because it can do something
 */

/** What shows numbers, and names their source on hover. */
const SHOWS_NUMBERS = ".moe-lead, .moe-canvas, .moe-facts, .moe-readout, .moe-findings, .moe-numbers, .moe-legend-title, [data-shows-numbers]";

/** Runs that are over take no commands. */
const OVER = ["finished", "stopped", "crashed", "lost"];

/**
 * @param {View} view
 * @returns {{ render: (host: { model: import("./_model.js").Model, el: HTMLElement }) => () => void }} an AFM widget
 */
export function defineView(view) {
  return { render: ({ model, el }) => mount(view, model, el) };
}

/** @param {string} name @param {string} title @param {string} [style] */
function skeleton(name, title, style) {
  const id = uniqueId(name);
  const parts = {
    lead: h("p", { class: "moe-lead" }),
    badge: h("span", { class: "moe-badge", hidden: true }),
    toolbar: h("div", { class: "moe-toolbar" }),
    message: h("p", { class: "moe-message", hidden: true }),
    body: h("div", { class: "moe-body" }),
    notes: h("p", { class: "moe-notes" }),
    toggle: button("Show the numbers", { "aria-expanded": "false", "aria-controls": `${id}-numbers` }),
    numbers: h("div", { class: "moe-numbers", id: `${id}-numbers`, hidden: true, tabindex: 0, role: "region" }),
    live: h("div", { class: "moe-hidden", "aria-live": "polite" }),
  };
  parts.numbers.setAttribute("aria-label", "Table of the numbers in this picture");
  const root = h("section", { class: `moe-view moe-${name}`, "data-view": name, "aria-labelledby": id });
  root.append(styleElement(style), h("h3", { class: "moe-title", id }, title, parts.badge), parts.lead, parts.message, parts.toolbar);
  const foot = h("div", { class: "moe-foot" }, parts.notes, parts.toggle);
  root.append(parts.body, foot, parts.numbers, parts.live);
  return { root, foot, ...parts };
}

/** @returns {string} an id that no other command has, also where the page is not served securely */
function newId() {
  if (crypto.randomUUID !== undefined) return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * @param {View} view
 * @param {import("./_model.js").Model} model
 * @param {HTMLElement} el
 * @returns {() => void} cleanup
 */
function mount(view, model, el) {
  const abort = new AbortController();
  const shell = skeleton(view.name, view.title, view.style);
  el.append(shell.root);
  /** @type {Part} */
  let part;
  /** @type {Record<string, number> | null} the reader's last choice here: what this view need not be told */
  let own = null;
  const fillTable = () => {
    if (!shell.numbers.hidden) shell.numbers.replaceChildren(tableElement(part.table()));
  };
  /** @type {Frame} */
  const frame = {
    root: shell.root,
    toolbar: shell.toolbar,
    body: shell.body,
    signal: abort.signal,
    colour: (name) => resolved(shell.root)(name),
    isDark: () => shell.root.dataset.theme === "dark",
    lead: (text) => void (shell.lead.textContent = text),
    say: (text) => void (shell.live.textContent = text),
    choose: (selection) => {
      own = selection;
      model.set("selection", selection);
      model.save_changes();
    },
    chooseRun: (id) => {
      model.set("run_id", id);
      frame.choose({ ...model.get("selection"), run: id });
    },
    command: (op, args = {}) => {
      const id = newId();
      model.set("command", { id, op, args });
      model.save_changes();
      return id;
    },
    run: () => model.get("run") ?? null,
    isLive: () => frame.run() !== null && !OVER.includes(frame.run()?.status),
    refreshTable: fillTable,
  };
  part = view.create(frame);
  watchTheme(shell.root, () => part.redraw(), abort.signal);
  shell.toggle.addEventListener("click", () => toggleTable(shell, fillTable), { signal: abort.signal });
  const detach = listen(model, {
    payload: () => show(shell, part, model.get("payload"), { fill: fillTable, hasControls: view.hasControls ?? false }),
    selection: () => {
      const selection = model.get("selection");
      if (selection && selection !== own && part.select && !shell.body.hidden) part.select(selection);
    },
    run: part.run && (() => part.run?.(frame.run())),
    acks: part.acks && (() => part.acks?.(model.get("acks") ?? {})),
    runs: part.runs && (() => part.runs?.(model.get("runs") ?? [])),
  });
  return () => {
    detach();
    abort.abort();
    shell.root.remove();
  };
}

/**
 * Hears what the host changes, and starts with what is there already; a choice made before the view is old news.
 * @param {import("./_model.js").Model} model @param {Record<string, (() => void) | undefined>} hooks by trait
 * @returns {() => void} stops
 */
function listen(model, hooks) {
  const known = /** @type {[string, () => void][]} */ (Object.entries(hooks).filter(([, hear]) => hear !== undefined));
  for (const [trait, hear] of known) {
    model.on(`change:${trait}`, hear);
    if (trait !== "selection") hear();
  }
  return () => known.forEach(([trait, hear]) => model.off(`change:${trait}`, hear));
}

/** @param {ReturnType<typeof skeleton>} shell @param {() => void} fill */
function toggleTable(shell, fill) {
  shell.numbers.hidden = !shell.numbers.hidden;
  shell.toggle.setAttribute("aria-expanded", String(!shell.numbers.hidden));
  shell.toggle.textContent = shell.numbers.hidden ? "Show the numbers" : "Hide the numbers";
  if (shell.numbers.hidden) shell.numbers.replaceChildren();
  else fill();
}

/**
 * @param {ReturnType<typeof skeleton>} shell
 * @param {Part} part
 * @param {any} value the payload trait
 * @param {{ fill: () => void, hasControls: boolean }} options
 */
function show(shell, part, value, { fill, hasControls }) {
  let message = hasControls ? "" : "Nothing has been recorded yet. This view fills in with the first recorded step.";
  try {
    const payload = decode(value);
    if (payload !== null) message = payload.header.empty ?? "";
    const isEmpty = payload === null || message !== "";
    for (const node of [shell.toolbar, shell.body]) node.hidden = isEmpty && !hasControls;
    shell.toggle.hidden = isEmpty;
    if (isEmpty) shell.numbers.hidden = true;
    if (payload !== null) {
      shell.badge.textContent = payload.header.badge;
      shell.badge.hidden = payload.header.badge === "";
      showNotes(shell.notes, payload.header.statements);
      if (!isEmpty) part.update(payload);
    }
    shell.foot.hidden = isEmpty && shell.notes.childElementCount === 0;
    if (isEmpty) shell.lead.textContent = "";
    else fill();
    nameSource(shell.root, payload);
  } catch (error) {
    message = `This view cannot read its data: ${error instanceof Error ? error.message : error}.`;
    shell.body.hidden = shell.toolbar.hidden = shell.toggle.hidden = true;
    console.error(error);
  }
  shell.message.textContent = message;
  shell.message.hidden = message === "";
}

/**
 * Where the numbers come from, on hover over any of them.
 * @param {HTMLElement} root @param {Payload | null} payload
 */
function nameSource(root, payload) {
  if (payload === null || payload.header.empty) return;
  const text = [payload.header.source ?? "Read from the trace of this run.", ...payload.header.statements].join(" ");
  for (const node of /** @type {NodeListOf<HTMLElement>} */ (root.querySelectorAll(SHOWS_NUMBERS))) if (node.title !== text) node.title = text;
}

/** @param {HTMLElement} host @param {string[]} statements a running view says the same at every step: then nothing is touched */
function showNotes(host, statements) {
  const isSame = host.childElementCount === statements.length && statements.every((text, i) => host.children[i].textContent === text);
  if (!isSame) host.replaceChildren(...statements.map((text) => h("span", {}, text)));
}
