// @ts-check
/** What a run, a command and a connection are called: the same words in every part of the live view. */
import { listed, number, plural } from "./_number.js";

/**
 * @typedef {import("./_commands.js").CommandRecord} CommandRecord
 * @typedef {import("./_icons.js").IconName} IconName
 */

/** @type {Record<string, { word: string, icon: IconName, meaning: string, isOver?: boolean }>} */
const STATUS = {
  starting: { word: "Starting", icon: "clock", meaning: "The model and its data are being made ready." },
  running: { word: "Training", icon: "play", meaning: "The model is learning now." },
  paused: { word: "Paused", icon: "pause", meaning: "Nothing moves until it is told to go on." },
  waiting: { word: "Waiting", icon: "clock", meaning: "Not training now; the notebook decides when it goes on. Commands are answered." },
  finished: { word: "Finished", icon: "check", meaning: "It has taken all its steps. Everything below stays as it was recorded.", isOver: true },
  stopped: { word: "Stopped", icon: "stop", meaning: "Somebody ended it. Everything below stays as it was recorded.", isOver: true },
  crashed: { word: "Crashed", icon: "warning", meaning: "It ended with an error. What was recorded before is below and in its trace.", isOver: true },
  lost: { word: "Lost", icon: "warning", meaning: "Its process is gone without a word. What arrived before is below.", isOver: true },
};

/** @param {string} status */
export function statusOf(status) {
  return STATUS[status] ?? { word: status, icon: /** @type {IconName} */ ("clock"), meaning: "" };
}

/** @param {any} state @returns {string} what is trained on what, in one line */
export function describeRun({ model, num_layers, num_experts, top_k, corpus, seed }) {
  // A description with numbers in it tells the sizes already; a bare name does not.
  const size = num_layers && !/\d/.test(model ?? "") ? `${plural(num_layers, "layer")} × ${plural(num_experts, "expert")}` : "";
  const words = [model, size, top_k && `top ${top_k}`, corpus && `on ${corpus}`, seed !== null && seed !== undefined && `seed ${seed}`];
  return words.filter(Boolean).join(" · ");
}

/** @param {Record<string, any>} args @returns {string} "name=value, ..." */
export function argumentsText(args) {
  return Object.entries(args ?? {}).map(([name, value]) => `${name}=${JSON.stringify(value)}`).join(", ");
}

/** @param {string} text "name=value, ..." @returns {Record<string, any>} @throws {Error} when it is not of that form */
export function parseArguments(text) {
  /** @type {Record<string, any>} */
  const found = {};
  for (const part of text.split(",").filter((piece) => piece.trim() !== "")) {
    const [name, ...rest] = part.split("=");
    const value = rest.join("=").trim();
    if (value === "" || !/^\w+$/.test(name.trim())) throw new Error(`expected name=value, got ${part.trim()}`);
    found[name.trim()] = scalar(value);
  }
  return found;
}

/** @param {string} text @returns {any} */
function scalar(text) {
  const words = new Map([["true", true], ["True", true], ["false", false], ["False", false], ["null", null], ["None", null]]);
  if (words.has(text)) return words.get(text);
  return Number.isFinite(Number(text)) ? Number(text) : text.replace(/^(["'])(.*)\1$/, "$2");
}

/** @param {any} args */
const place = ({ layer, expert }) => `expert ${expert} of layer ${layer}`;

/** @type {Record<string, (args: any) => string>} */
const ACTIONS = {
  pause: () => "Pause",
  resume: () => "Resume",
  step: ({ count = 1 }) => (count === 1 ? "One step" : `${count} steps`),
  stop: () => "Stop",
  set_rate: ({ frames_per_second }) => `Show ${plural(frames_per_second, "update")} a second`,
  swap_router: ({ name, args }) => `Swap the router to ${name}${argumentsText(args) && ` (${argumentsText(args)})`}`,
  set_router_args: ({ args }) => `Set ${argumentsText(args)}`,
  set_shadow: ({ name }) => (name === null ? "Take the shadow router away" : `Shadow router ${name}`),
  pin_expert: (args) => `Pin ${place(args)}`,
  ban_expert: (args) => `Ban ${place(args)}`,
  bias_expert: (args) => (args.bias === 0 ? `Take the steering of ${place(args)} back` : `Bias ${place(args)} by ${args.bias > 0 ? "+" : ""}${args.bias}`),
  measure_expert: (args) => `Measure what ${place(args)} does`,
  generate: ({ prompt = "" }) => `Generate from “${prompt.length > 40 ? `${prompt.slice(0, 40)}…` : prompt}”`,
  checkpoint: () => "Checkpoint",
  rewind: () => "Rewind to the checkpoint",
  undo: () => "Undo",
  annotate: ({ text = "" }) => `Note: ${text}`,
  set_cache_size: ({ slots }) => `Cache of ${plural(slots, "slot")}`,
  set_policy: ({ name }) => `Cache policy ${name}`,
  set_prefetcher: ({ name }) => `Prefetcher ${name}`,
  reset: () => "Reset",
  take_over: () => "Take over",
};

/** @param {{ op: string, args: any }} command @returns {string} */
export function actionOf({ op, args }) {
  return ACTIONS[op]?.(args ?? {}) ?? op.replaceAll("_", " ");
}

/** @param {CommandRecord} record @returns {string} how far a command has come */
export function lifeOf({ status, step, reason }) {
  if (status === "sent") return "sent";
  if (status === "accepted") return "accepted, waits for the next step";
  if (status === "refused") return reason === "" ? "refused" : `refused: ${reason}`;
  return step === null ? "applied" : `applied at step ${step.toLocaleString("en-US")}`;
}

/** @param {number} seconds since the epoch @returns {string} time of day */
export function timeOfDay(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
}

/** @param {number} perSecond @returns {[string, string]} number and unit */
export function speedOf(perSecond) {
  if (!(perSecond > 0)) return ["–", ""];
  return perSecond >= 10000 ? [(perSecond / 1000).toPrecision(3), "k tokens/s"] : [number(perSecond), "tokens/s"];
}

/**
 * Experts that stand out, in a sentence with what it means and what to do; "" when none do.
 * @param {any} idle @param {any} overloaded lists of {layer, expert}, or how many
 * @param {number} total experts of all layers
 * @returns {string}
 */
export function balanceSentence(idle, overloaded, total) {
  const [idleCount, overCount] = [countOf(idle), countOf(overloaded)];
  const of = total > 0 ? ` of ${total}` : "";
  const said = [];
  if (idleCount > 0) said.push(`${idleCount}${of} experts ${idleCount === 1 ? "is" : "are"} idle${namesOf(idle)}: hardly a token reaches ${idleCount === 1 ? "it, so it learns" : "them, so they learn"} nothing.`);
  if (overCount > 0) said.push(`${overCount} ${overCount === 1 ? "expert gets" : "experts get"} more than twice a fair share${namesOf(overloaded)}.`);
  if (said.length > 0) said.push("A router that balances its load would spread the tokens.");
  return said.join(" ");
}

/** @param {any} found @returns {number} */
function countOf(found) {
  return Array.isArray(found) ? found.length : Number(found ?? 0) || 0;
}

/** @param {any} found @returns {string} " (layer 1: 3, 5)", "" without names or with too many */
function namesOf(found) {
  if (!Array.isArray(found) || found.length === 0 || found.length > 6) return "";
  const pairs = found.map((entry) => (Array.isArray(entry) ? { layer: entry[0], expert: entry[1] } : entry));
  const layers = [...new Set(pairs.map(({ layer }) => layer))];
  return ` (${layers.map((layer) => `layer ${layer}: ${listed(pairs.filter((pair) => pair.layer === layer).map(({ expert }) => expert))}`).join("; ")})`;
}
