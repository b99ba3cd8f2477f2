// @ts-check
/** Everything that was done to the run, by anybody: how far each command has come, and the same in Python. */
import { copyButton } from "./_copy.js";
import { h } from "./_dom.js";
import { icon } from "./_icons.js";
import { plural } from "./_number.js";
import { actionOf, lifeOf, timeOfDay } from "./_words.js";

const SHOWN = 40;

/**
 * @typedef {import("./_commands.js").CommandRecord} CommandRecord
 * @typedef {{ root: HTMLElement, show: (records: CommandRecord[], state: any) => void }} Log
 */

/** @param {CommandRecord[]} records @param {any} state @returns {string} the whole session as code */
export function sessionCode(records, state) {
  const done = records.filter(({ status, python }) => status === "applied" && python !== "");
  const lines = done.map(({ python, step }) => (step === null ? python : `${python}  # at step ${step}`));
  return [state?.python ?? "", ...lines].filter((line) => line !== "").join("\n");
}

/** @param {AbortSignal} signal @returns {Log} */
export function createLog(signal) {
  const count = h("small", {});
  const list = h("ol", { "aria-label": "Commands, newest first" });
  const code = h("code", {});
  const empty = h("p", { class: "moe-notes" }, "Nothing has been changed yet. Every press of a control is listed here, with the Python that does the same.");
  /** @type {{ records: CommandRecord[], state: any, rows: Map<string, Row> }} */
  const memory = { records: [], state: null, rows: new Map() };
  const session = () => sessionCode(memory.records, memory.state);
  const all = copyButton("Copy the session as Python", session, signal);
  const title = h("summary", {}, icon("down"), h("span", {}, "What was done"), count);
  const root = h("details", { class: "moe-live-log" }, title, h("div", { class: "moe-live-log-body" }, empty, list, h("div", { class: "moe-live-row" }, all), code));
  const draw = () => {
    const { records, rows } = memory;
    count.textContent = records.length === 0 ? "nothing yet" : `${plural(records.length, "command")}`;
    if (!root.open) return;
    empty.hidden = records.length > 0;
    fill(list, records.slice(-SHOWN).reverse(), rows, signal);
    const text = session();
    all.hidden = code.hidden = text === "";
    if (code.textContent !== text) code.textContent = text;
  };
  root.addEventListener("toggle", draw, { signal });
  return {
    root,
    show(records, state) {
      Object.assign(memory, { records, state });
      draw();
    },
  };
}

/** @typedef {{ item: HTMLLIElement, life: HTMLElement, copy: HTMLButtonElement, record: CommandRecord }} Row */

/** @param {HTMLElement} list @param {CommandRecord[]} records newest first @param {Map<string, Row>} rows @param {AbortSignal} signal */
function fill(list, records, rows, signal) {
  const kept = new Set(records.map(({ id }) => id));
  for (const [id, row] of rows) {
    if (kept.has(id)) continue;
    row.item.remove();
    rows.delete(id);
  }
  records.forEach((record, at) => {
    const row = rows.get(record.id) ?? newRow(record, signal);
    rows.set(record.id, row);
    row.record = record;
    const actor = record.actor === "" ? "" : ` · ${record.actor}`;
    const text = lifeOf(record) + actor;
    if (row.life.textContent !== text) row.life.textContent = text;
    row.item.dataset.status = record.status;
    row.copy.hidden = record.python === "";
    if (list.children[at] !== row.item) list.insertBefore(row.item, list.children[at] ?? null);
  });
}

/** @param {CommandRecord} record @param {AbortSignal} signal @returns {Row} */
function newRow(record, signal) {
  const life = h("small", {});
  const what = actionOf(record);
  /** @type {any} */
  const row = { life, record };
  row.copy = copyButton("Copy as Python", () => row.record.python, signal);
  row.copy.setAttribute("aria-label", `Copy as Python: ${what}`);
  row.item = h("li", {}, h("time", {}, timeOfDay(record.time)), h("div", {}, what, life), row.copy);
  return row;
}
