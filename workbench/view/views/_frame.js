// @ts-check
/** What every view has: title, sentence, controls, picture, notes on sampling, and a table of the same numbers. */
import { button, h, tableElement, uniqueId } from "./_dom.js";
import { decode } from "./_payload.js";
import { styleElement } from "./_style.js";
import { resolved, watchTheme } from "./_theme.js";

/**
 * @typedef {import("./_payload.js").Payload} Payload
 * @typedef {{ caption: string, head: string[], rows: (string | number)[][] }} Table
 * @typedef {{
 *   update: (payload: Payload) => void,
 *   redraw: () => void,
 *   table: () => Table,
 *   select?: (selection: Record<string, number>) => void,
 * }} Part redraw: after a change of theme; select: the reader chose something in another view
 * @typedef {{
 *   root: HTMLElement,
 *   toolbar: HTMLElement,
 *   body: HTMLElement,
 *   signal: AbortSignal,
 *   colour: (name: string) => string,
 *   isDark: () => boolean,
 *   lead: (text: string) => void,
 *   say: (text: string) => void,
 *   choose: (selection: Record<string, number>) => void,
 *   refreshTable: () => void,
 * }} Frame lead: the sentence under the title; say: to a screen reader; choose: tell the host and the other views
 */

/**
 * @param {{ name: string, title: string, style?: string, create: (frame: Frame) => Part }} view
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
    body: h("div", {}),
    notes: h("p", { class: "moe-notes" }),
    toggle: button("Show the numbers", { "aria-expanded": "false", "aria-controls": `${id}-numbers` }),
    numbers: h("div", { class: "moe-numbers", id: `${id}-numbers`, hidden: true, tabindex: 0, role: "region" }),
    live: h("div", { class: "moe-hidden", "aria-live": "polite" }),
  };
  parts.numbers.setAttribute("aria-label", "Table of the numbers in this picture");
  const root = h("section", { class: `moe-view moe-${name}`, "data-view": name, "aria-labelledby": id });
  root.append(styleElement(style), h("h3", { class: "moe-title", id }, title, parts.badge), parts.lead, parts.message, parts.toolbar);
  root.append(parts.body, h("div", { class: "moe-foot" }, parts.notes, parts.toggle), parts.numbers, parts.live);
  return { root, ...parts };
}

/**
 * @param {{ name: string, title: string, style?: string, create: (frame: Frame) => Part }} view
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
    refreshTable: fillTable,
  };
  part = view.create(frame);
  watchTheme(shell.root, () => part.redraw(), abort.signal);
  shell.toggle.addEventListener("click", () => toggleTable(shell, fillTable), { signal: abort.signal });
  const onPayload = () => show(shell, part, model.get("payload"), fillTable);
  const onSelection = () => {
    const selection = model.get("selection");
    if (selection && selection !== own && part.select && !shell.body.hidden) part.select(selection);
  };
  model.on("change:payload", onPayload);
  model.on("change:selection", onSelection);
  onPayload();
  return () => {
    model.off("change:payload", onPayload);
    model.off("change:selection", onSelection);
    abort.abort();
    shell.root.remove();
  };
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
 * @param {() => void} fill
 */
function show(shell, part, value, fill) {
  let message = "Nothing has been recorded yet. This view fills in with the first recorded step.";
  try {
    const payload = decode(value);
    if (payload !== null) message = payload.header.empty ?? "";
    const isEmpty = message !== "";
    for (const node of [shell.toolbar, shell.body, shell.toggle]) node.hidden = isEmpty;
    if (isEmpty) shell.numbers.hidden = true;
    if (payload !== null) {
      shell.badge.textContent = payload.header.badge;
      shell.badge.hidden = payload.header.badge === "";
      shell.notes.replaceChildren(...payload.header.statements.map((/** @type {string} */ text) => h("span", {}, text)));
      if (!isEmpty) part.update(payload);
    }
    if (isEmpty) shell.lead.textContent = "";
    else fill();
  } catch (error) {
    message = `This view cannot read its data: ${error instanceof Error ? error.message : error}.`;
    shell.body.hidden = shell.toolbar.hidden = shell.toggle.hidden = true;
    console.error(error);
  }
  shell.message.textContent = message;
  shell.message.hidden = message === "";
}
