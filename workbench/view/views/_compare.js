// @ts-check
/** Runs side by side: one column each, and what differs stands out. */
import { h } from "./_dom.js";
import { number } from "./_number.js";
import { argumentsText, speedOf, statusOf } from "./_words.js";

const MOST = 5;

/** @type {[string, (run: any) => string][]} */
const ROWS = [
  ["Status", (run) => statusOf(run.status).word],
  ["Model", (run) => run.model ?? "–"],
  ["Router", (run) => [run.router ?? "–", argumentsText(run.router_args)].filter(Boolean).join(" · ")],
  ["Shadow router", (run) => run.shadow ?? "none"],
  ["Corpus", (run) => run.corpus ?? "–"],
  ["Seed", (run) => (Number.isFinite(run.seed) ? String(run.seed) : "–")],
  ["Learning rate", (run) => (Number.isFinite(run.learning_rate) ? number(run.learning_rate) : "–")],
  ["Step", (run) => (run.step ?? 0).toLocaleString("en-US")],
  ["Tokens read", (run) => (Number.isFinite(run.tokens) ? run.tokens.toLocaleString("en-US") : "–")],
  ["Loss [nat/token]", (run) => (Number.isFinite(run.loss) ? number(run.loss, 4) : "–")],
  ["Speed", (run) => speedOf(run.tokens_per_second ?? 0).join(" ").trim()],
  ["Idle experts", (run) => count(run.idle_experts)],
  ["Overloaded experts", (run) => count(run.overloaded_experts)],
];
/** Rows in which a difference is expected, and says nothing about the settings. */
const MEASURED = new Set(["Status", "Step", "Tokens read", "Loss [nat/token]", "Speed", "Idle experts", "Overloaded experts", "Learning rate"]);

/** @param {any} found @returns {string} */
function count(found) {
  return Array.isArray(found) ? String(found.length) : Number.isFinite(found) ? String(found) : "–";
}

/**
 * @param {AbortSignal} signal
 * @returns {{ root: HTMLElement, show: (runs: any[]) => void }}
 */
export function createCompare(signal) {
  /** @type {Set<string>} */
  const chosen = new Set();
  /** @type {any[]} */
  let runs = [];
  let isTouched = false;
  const [picks, host, lead] = [h("div", { class: "moe-live-picks", role: "group", "aria-label": "Runs to compare" }), h("div", { class: "moe-live-scroll", tabindex: 0, role: "region", "aria-label": "Comparison of runs" }), h("p", { class: "moe-lead" })];
  const root = h("section", { class: "moe-block", hidden: true }, h("h3", {}, "Side by side"), lead, picks, host);
  const draw = () => {
    const shown = runs.filter(({ id }) => chosen.has(id));
    host.hidden = shown.length < 2;
    lead.textContent = shown.length < 2 ? "Tick two runs or more." : sentence(shown);
    if (shown.length > 1) host.replaceChildren(table(shown));
  };
  picks.addEventListener("change", (event) => {
    if (!(event.target instanceof HTMLInputElement)) return;
    isTouched = true;
    if (event.target.checked) chosen.add(event.target.value);
    else chosen.delete(event.target.value);
    draw();
  }, { signal });
  return {
    root,
    show(all) {
      runs = [...all].sort((a, b) => (b.started_at ?? 0) - (a.started_at ?? 0));
      root.hidden = runs.length < 2;
      const measured = runs.filter(({ loss }) => Number.isFinite(loss));
      if (!isTouched) measured.forEach(({ id }) => chosen.size < 3 && chosen.add(id));
      offer(picks, runs, chosen);
      draw();
    },
  };
}

/** @param {HTMLElement} picks @param {any[]} runs @param {Set<string>} chosen keeps the boxes that are there, so that the focus stays */
function offer(picks, runs, chosen) {
  const key = runs.map(({ id, title }) => `${id}${title}`).join();
  if (picks.dataset.key !== key) {
    picks.dataset.key = key;
    picks.replaceChildren(...runs.slice(0, 12).map(({ id, title }) => h("label", { class: "moe-live-tick" }, h("input", { type: "checkbox", value: id }), title || id.slice(0, 8))));
  }
  for (const box of picks.querySelectorAll("input")) {
    box.checked = chosen.has(box.value);
    box.disabled = !box.checked && chosen.size >= MOST;
  }
}

/** @param {any[]} runs @returns {string} */
function sentence(runs) {
  const known = runs.filter(({ loss }) => Number.isFinite(loss));
  if (known.length < 2) return "No losses to compare yet.";
  const best = known.reduce((a, b) => (b.loss < a.loss ? b : a));
  const steps = new Set(known.map(({ step }) => step));
  const care = steps.size > 1 ? " They are not equally far, so this may still change." : "";
  return `Lowest training loss so far: ${best.title || best.id.slice(0, 8)} with ${number(best.loss, 4)} nat per token at step ${best.step.toLocaleString("en-US")}.${care}`;
}

/** @param {any[]} runs @returns {HTMLTableElement} */
function table(runs) {
  const body = ROWS.map(([name, of]) => {
    const values = runs.map(of);
    const differs = !MEASURED.has(name) && new Set(values).size > 1;
    const sign = differs ? [" ", h("small", {}, "differs")] : [];
    return h("tr", { "data-differs": differs }, h("th", { scope: "row" }, name, ...sign), ...values.map((value) => h("td", {}, value)));
  });
  const head = h("tr", {}, h("td", {}), ...runs.map(({ title, id }) => h("th", { scope: "col" }, title || id.slice(0, 8))));
  return h("table", { class: "moe-live-compare" }, h("thead", {}, head), h("tbody", {}, ...body));
}
