// @ts-check
/** Lessons: what can be started with one press, every setting of it, and a link that carries them all. */
import { copyButton } from "./_copy.js";
import { button, h } from "./_dom.js";
import { iconButton } from "./_press.js";
import { argumentsText, parseArguments } from "./_words.js";

/**
 * @typedef {{ kind: string, low?: number, high?: number, default?: any, choices?: string[], is_nullable?: boolean }} Option
 * @typedef {{ id: string, title: string, description: string, options: Record<string, Option> }} Lesson
 * @typedef {{ root: HTMLElement, open: () => void }} Card
 */

/** What an option is called, and what it does, where its name does not say so. @type {Record<string, [string, string]>} */
const WORDS = {
  model: ["Model", "how large"],
  corpus: ["Corpus", "what it reads"],
  router: ["Router", "what chooses experts"],
  router_args: ["Router arguments", "name=value, ..."],
  shadow: ["Shadow router", "watches only"],
  seed: ["Seed", "same seed, same run"],
  steps: ["Steps", ""],
  batch_size: ["Batch", "sequences a step"],
  sequence_length: ["Length", "tokens a sequence"],
  learning_rate: ["Learning rate", "at its highest"],
  balance: ["Balance loss", "weight; empty: the router's own"],
  device: ["Device", ""],
};

/**
 * @param {Lesson} lesson
 * @param {Record<string, string>} given values of a link
 * @param {(id: string, options: Record<string, any>) => Promise<string>} start returns why not, or ""
 * @param {AbortSignal} signal
 * @returns {Card}
 */
export function lessonCard(lesson, given, start, signal) {
  const fields = Object.entries(lesson.options).map(([name, option]) => field(name, option, given[name]));
  const run = iconButton("play", "Start", { class: "moe-button moe-main" });
  const settings = button("Settings", { "aria-expanded": "false" });
  const problem = h("p", { class: "moe-live-problem", role: "alert" });
  const read = () => Object.fromEntries(fields.map(({ name, value }) => [name, value()]));
  const link = copyButton("Copy link", () => linkOf(lesson.id, read()), signal);
  const form = h("div", { class: "moe-live-form", hidden: true }, ...fields.map(({ root }) => root));
  const root = h("li", { class: "moe-lesson" }, h("h4", {}, lesson.title), h("p", {}, lesson.description));
  root.append(h("div", { class: "moe-live-row" }, run.element, settings, link), problem, form);
  const toggle = (/** @type {boolean} */ isOpen) => {
    form.hidden = !isOpen;
    root.toggleAttribute("data-open", isOpen);
    settings.setAttribute("aria-expanded", String(isOpen));
  };
  settings.addEventListener("click", () => toggle(form.hidden === true), { signal });
  run.element.addEventListener("click", async () => {
    run.element.disabled = true;
    run.words.textContent = "Starting…";
    problem.textContent = "";
    try {
      problem.textContent = await start(lesson.id, read());
    } catch (error) {
      problem.textContent = error instanceof Error ? error.message : String(error);
    }
    run.element.disabled = false;
    run.words.textContent = "Start";
  }, { signal });
  return { root, open: () => toggle(true) };
}

/** @param {string} preset @param {Record<string, any>} options @returns {string} address of this page with every setting in it */
function linkOf(preset, options) {
  const address = new URL(location.pathname, location.href);
  address.searchParams.set("preset", preset);
  for (const [name, value] of Object.entries(options)) address.searchParams.set(name, typeof value === "string" ? value : JSON.stringify(value));
  return address.href;
}

/** @param {string} name @param {Option} option @param {string | undefined} given @returns {{ name: string, root: HTMLElement, value: () => any }} */
function field(name, option, given) {
  const [label, about] = WORDS[name] ?? [name.replaceAll("_", " "), ""];
  const start = given ?? shown(option);
  const input = option.choices
    ? h("select", { class: "moe-select" }, ...option.choices.map((choice) => h("option", { value: choice, selected: choice === start }, choice)))
    : h("input", { class: "moe-live-input", type: isNumber(option) ? "number" : "text", min: option.low, max: option.high, step: option.kind === "integer" ? 1 : "any" });
  if (input instanceof HTMLInputElement) input.value = start === "null" ? "" : start;
  const words = h("span", {}, label, ...(about === "" ? [] : [" ", h("small", {}, about)]));
  return { name, root: h("label", { class: "moe-live-setting" }, words, input), value: () => valueOf(label, option, input.value.trim()) };
}

/** @param {Option} option */
function isNumber({ kind }) {
  return kind === "integer" || kind === "number";
}

/** @param {Option} option @returns {string} its default, as it stands in a field */
function shown({ kind, default: value }) {
  if (value === null || value === undefined) return "";
  return kind === "scalars" ? argumentsText(value) : String(value);
}

/** @param {string} label @param {Option} option @param {string} text @returns {any} @throws {Error} a number that is none */
function valueOf(label, option, text) {
  if (text === "" && option.is_nullable) return null;
  if (option.kind === "scalars") return text.startsWith("{") ? JSON.parse(text) : parseArguments(text);
  if (!isNumber(option)) return text;
  const value = Number(text);
  if (text === "" || !Number.isFinite(value)) throw new Error(`${label} must be a number, got ${text === "" ? "nothing" : text}`);
  return value;
}
