// @ts-check
/** Which runs are there? One line per run, sortable; pressing a run opens it. */
import { h } from "./_dom.js";
import { defineView } from "./_frame.js";
import { grouped, listed, number, plural } from "./_number.js";

/**
 * @typedef {import("./_frame.js").RunState} RunState
 * @typedef {{ key: string, name: string, note?: string, value: (run: RunState) => string | number, text: (run: RunState) => string, isNumber?: boolean, isNewestFirst?: boolean }} Column
 *   value: what it is sorted by; isNewestFirst: the first press puts the largest on top
 * @typedef {{ runs: RunState[], chosen: string, sort: string, isDown: boolean }} State
 */

/** How a run is doing: sign and word, what it means. @type {Record<string, [string, string, string]>} */
const STATUS = {
  running: ["▶", "Training", "The model is learning now."],
  paused: ["❚❚", "Paused", "Nothing moves until it is told to go on."],
  waiting: ["◌", "Waiting", "Not training now; commands are answered."],
  starting: ["◌", "Starting", "The model and its data are being made ready."],
  finished: ["✓", "Finished", "It has taken all its steps."],
  stopped: ["■", "Stopped", "Somebody ended it."],
  crashed: ["!", "Crashed", "It ended with an error."],
  lost: ["?", "Lost", "Its process is gone without a word."],
};
const ORDER = Object.keys(STATUS);

/** @param {any} value a count, or a list of experts @returns {number} NaN where it is not known */
function count(value) {
  return Array.isArray(value) ? value.length : (value ?? NaN);
}

/** @param {RunState} run @returns {number} seconds since it began */
function age({ started_at }) {
  return Math.max(0, Date.now() / 1000 - started_at);
}

/** @param {number} seconds @returns {string} */
function ageText(seconds) {
  if (!Number.isFinite(seconds)) return "no data";
  /** @type {[number, string][]} */
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const [size, unit] = units.find(([least]) => seconds >= least) ?? [1, "s"];
  return `${Math.floor(seconds / size)} ${unit}`;
}

/** @param {any} value @returns {string} */
function whole(value) {
  return Number.isFinite(value) ? grouped(Math.round(value)) : "–";
}

/** @type {Column[]} */
const COLUMNS = [
  { key: "title", name: "Run", value: ({ title, id }) => title || id, text: ({ title, id }) => title || id },
  { key: "status", name: "Status", value: ({ status }) => ORDER.indexOf(status), text: ({ status }) => STATUS[status]?.[1] ?? status },
  {
    key: "step", name: "Step", isNumber: true, isNewestFirst: true, value: ({ step }) => step,
    text: ({ step, target_step }) => (Number.isFinite(target_step) ? `${whole(step)} of ${whole(target_step)}` : whole(step)),
  },
  { key: "loss", name: "Loss", note: "mean cross-entropy of the last training step [nats per token]", isNumber: true, value: ({ loss }) => loss, text: ({ loss }) => (Number.isFinite(loss) ? number(loss, 3) : "–") },
  { key: "speed", name: "Tokens/s", note: "training tokens per second in the last step", isNumber: true, isNewestFirst: true, value: ({ tokens_per_second }) => tokens_per_second, text: ({ tokens_per_second }) => whole(tokens_per_second) },
  { key: "idle", name: "Idle experts", note: "experts that got no tokens", isNumber: true, isNewestFirst: true, value: ({ idle_experts }) => count(idle_experts), text: ({ idle_experts }) => whole(count(idle_experts)) },
  { key: "router", name: "Router", value: ({ router }) => router ?? "", text: ({ router }) => router ?? "–" },
  { key: "owner", name: "Owner", value: ({ owner }) => owner ?? "", text: ({ owner }) => owner ?? "–" },
  { key: "age", name: "Age", note: "since the run was started", isNumber: true, value: age, text: (run) => ageText(age(run)) },
];

/** @param {RunState[]} runs @param {string} key @param {boolean} isDown @returns {RunState[]} what is not known comes last either way */
function sorted(runs, key, isDown) {
  const { value } = COLUMNS.find((column) => column.key === key) ?? COLUMNS[0];
  const isKnown = (/** @type {string | number} */ one) => typeof one === "string" || Number.isFinite(one);
  return [...runs].sort((a, b) => {
    const [one, other] = [value(a), value(b)];
    if (!isKnown(one) || !isKnown(other)) return Number(isKnown(other)) - Number(isKnown(one));
    const order = typeof one === "string" ? one.localeCompare(String(other), "en") : one - Number(other);
    return isDown ? -order : order;
  });
}

/** @param {RunState[]} runs @returns {string} */
function sentence(runs) {
  if (runs.length === 0) return "No run is there yet.";
  const parts = ORDER.flatMap((status) => {
    const those = runs.filter((run) => run.status === status).length;
    return those > 0 ? [`${those} ${STATUS[status][1].toLowerCase()}`] : [];
  });
  return `${plural(runs.length, "run")}: ${listed(parts)}.`;
}

/** @param {import("./_frame.js").Frame} frame @returns {import("./_frame.js").Part} */
function create(frame) {
  /** @type {State} */
  const state = { runs: [], chosen: "", sort: "age", isDown: false };
  const head = h("tr", {});
  const body = h("tbody", {});
  const table = h("table", { class: "moe-table moe-runs" }, h("caption", { class: "moe-hidden" }, "Runs, one per line. Press a run to open it; press a heading to sort."), h("thead", {}, head), body);
  const host = h("div", { class: "moe-runs-host", tabindex: 0, role: "region", "aria-label": "Runs", "data-shows-numbers": true }, table);
  frame.body.append(host);
  const headings = COLUMNS.map((column) => heading(column, () => {
    state.isDown = state.sort === column.key ? !state.isDown : (column.isNewestFirst ?? false);
    state.sort = column.key;
    refresh();
    frame.say(`Sorted by ${column.name}, ${state.isDown ? "largest first" : "smallest first"}.`);
  }));
  head.append(...headings);
  const refresh = () => {
    headings.forEach((cell, i) => {
      const isSorted = COLUMNS[i].key === state.sort;
      if (isSorted) cell.setAttribute("aria-sort", state.isDown ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
    fill(body, sorted(state.runs, state.sort, state.isDown), state.chosen);
    host.hidden = state.runs.length === 0;
    frame.lead(sentence(state.runs));
  };
  const open = (/** @type {string} */ id) => {
    state.chosen = id;
    refresh();
    frame.chooseRun(id);
  };
  body.addEventListener("click", (event) => {
    const row = event.target instanceof Element ? event.target.closest("tr") : null;
    if (row !== null) open(row.dataset.run ?? "");
  }, { signal: frame.signal });
  body.addEventListener("keydown", (event) => onKey(event, body), { signal: frame.signal });
  const timer = setInterval(() => document.hidden || fill(body, sorted(state.runs, state.sort, state.isDown), state.chosen), 5000);
  frame.signal.addEventListener("abort", () => clearInterval(timer));
  return {
    update: () => {},
    redraw: () => {},
    table: () => ({ caption: "", head: [], rows: [] }),
    runs(list) {
      state.runs = list;
      refresh();
    },
    select: (selection) => {
      const run = /** @type {any} */ (selection).run;
      if (typeof run !== "string") return;
      state.chosen = run;
      refresh();
    },
  };
}

/** @param {Column} column @param {() => void} onPress */
function heading({ name, note, isNumber }, onPress) {
  const press = h("button", { type: "button", class: "moe-sort", title: note ?? false }, name);
  press.addEventListener("click", onPress);
  return h("th", { scope: "col", class: isNumber ? "moe-number" : undefined }, press);
}

/**
 * One row per run; rows that are there already are kept, so that the focus stays where it is.
 * @param {HTMLElement} body @param {RunState[]} runs @param {string} chosen
 */
function fill(body, runs, chosen) {
  const known = new Map([...body.children].map((row) => [/** @type {HTMLElement} */ (row).dataset.run, /** @type {HTMLTableRowElement} */ (row)]));
  const rows = runs.map((run) => {
    const row = known.get(run.id) ?? emptyRow(run.id);
    COLUMNS.forEach(({ text, key }, i) => {
      const place = i === 0 ? /** @type {HTMLElement} */ (row.cells[0].firstElementChild) : row.cells[i];
      const words = text(run);
      if (key === "status") showStatus(place, run, words);
      else if (place.textContent !== words) place.textContent = words;
    });
    row.setAttribute("aria-current", String(run.id === chosen));
    return row;
  });
  if (rows.length !== body.children.length || rows.some((row, i) => body.children[i] !== row)) keepFocus(body, () => body.replaceChildren(...rows));
}

/** @param {HTMLElement} body @param {() => void} change */
function keepFocus(body, change) {
  const root = /** @type {Document | ShadowRoot} */ (body.getRootNode());
  const focused = root.activeElement;
  change();
  if (focused instanceof HTMLElement && body.contains(focused)) focused.focus();
}

/** @param {string} id */
function emptyRow(id) {
  const press = h("button", { type: "button", class: "moe-open" });
  const cells = COLUMNS.slice(1).map(({ isNumber }) => h("td", { class: isNumber ? "moe-number" : undefined }));
  return h("tr", { "data-run": id }, h("th", { scope: "row" }, press), ...cells);
}

/** @param {HTMLElement} place @param {RunState} run @param {string} words */
function showStatus(place, { status, error }, words) {
  const [sign, , meaning] = STATUS[status] ?? ["", "", ""];
  if (place.dataset.status === status) return;
  place.dataset.status = status;
  place.title = [meaning, error].filter(Boolean).join(" ");
  place.replaceChildren(h("span", { class: "moe-sign", "aria-hidden": "true" }, sign), words);
}

/** @param {KeyboardEvent} event @param {HTMLElement} body */
function onKey(event, body) {
  const buttons = [...body.querySelectorAll(".moe-open")];
  const now = buttons.indexOf(/** @type {Element} */ (event.target));
  /** @type {Record<string, number>} */
  const moves = { ArrowUp: now - 1, ArrowDown: now + 1, Home: 0, End: buttons.length - 1 };
  if (now < 0 || !(event.key in moves)) return;
  event.preventDefault();
  /** @type {HTMLElement} */ (buttons[Math.max(0, Math.min(buttons.length - 1, moves[event.key]))]).focus();
}

const STYLE = `
.moe-runs-host { overflow-x: auto; margin-top: 12px; }
.moe-runs { font-size: 13.5px; }
.moe-runs th, .moe-runs td { padding: 3px 8px; text-align: left; }
.moe-runs thead th { padding: 0; background: none; border-top: 0; border-bottom: 1px solid var(--moe-line); }
.moe-runs .moe-number { text-align: right; }
.moe-sort { width: 100%; min-height: 32px; padding: 4px 8px; border: 0; background: none; font: 600 12.5px/1.3 var(--moe-font); color: var(--moe-muted); text-align: inherit; white-space: nowrap; cursor: pointer; }
.moe-sort:hover { color: var(--moe-text); }
.moe-sort::after { content: "↕" / ""; display: inline-block; width: 14px; margin-left: 2px; text-align: center; opacity: 0; }
.moe-sort:hover::after, .moe-sort:focus-visible::after { opacity: 0.6; }
[aria-sort] .moe-sort { color: var(--moe-text); }
[aria-sort="ascending"] .moe-sort::after { content: "↑" / ""; opacity: 1; }
[aria-sort="descending"] .moe-sort::after { content: "↓" / ""; opacity: 1; }
.moe-runs tbody tr { cursor: pointer; }
.moe-runs tbody tr:hover > * { background: var(--moe-panel); }
.moe-runs tbody tr[aria-current="true"] > * { background: var(--moe-panel); }
.moe-runs tbody tr[aria-current="true"] th { box-shadow: inset 3px 0 var(--moe-accent); }
.moe-open { min-width: 28px; min-height: 28px; max-width: 26ch; padding: 2px 0; border: 0; background: none; font: 600 13.5px/1.4 var(--moe-font); color: var(--moe-accent); text-align: left;
  overflow: hidden; text-overflow: ellipsis; white-space: nowrap; cursor: pointer; }
@container (max-width: 620px) { .moe-open { max-width: 13ch; } .moe-runs th, .moe-runs td, .moe-sort { padding-inline: 5px; } }
.moe-open:hover { text-decoration: underline; }
.moe-sign { display: inline-block; width: 24px; color: var(--moe-muted); }
[data-status="crashed"] .moe-sign, [data-status="lost"] .moe-sign { color: var(--moe-event); font-weight: 700; }
`;

export default defineView({ name: "run_table", title: "Which runs are there?", hasControls: true, style: STYLE, create });
