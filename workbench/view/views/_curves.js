// @ts-check
/** The numbers behind the loss curves: reading, smoothing, sentences and the table. */
import { duration, grouped, number } from "./_number.js";

/**
 * @typedef {{
 *   steps: Int32Array, series: Record<string, ArrayLike<number>>, smooth: Float64Array,
 *   evalSteps: Int32Array, evalLoss: ArrayLike<number>, domains: string[],
 *   events: import("./_axes.js").Flag[], units: Record<string, string>,
 * }} Data series: by name, at every step; evalLoss: evaluation by domain
 */

/** @type {Record<string, string>} */
const NAMES = { loss: "loss", lr: "learning rate", grad_norm: "gradient norm", tokens_per_second: "tokens/s", wall_seconds: "elapsed [s]" };

/** @param {ArrayLike<number>} values @param {number} smoothing 0..1 @returns {Float64Array} bias-corrected running mean */
export function smoothed(values, smoothing) {
  const out = new Float64Array(values.length).fill(NaN);
  let [sum, weight] = [0, 0];
  for (let i = 0; i < values.length; i += 1) {
    if (!Number.isFinite(values[i])) continue;
    sum = smoothing * sum + (1 - smoothing) * values[i];
    weight = smoothing * weight + (1 - smoothing);
    out[i] = sum / weight;
  }
  return out;
}

/** @param {import("./_frame.js").Payload} payload @param {number} smoothing @returns {Data} */
export function read({ header, arrays }, smoothing) {
  const series = Object.fromEntries(header.series.map((/** @type {string} */ name) => [name, arrays[name].data]));
  return {
    steps: arrays.step.data,
    series,
    smooth: smoothed(series.loss, smoothing),
    evalSteps: arrays.eval_step?.data ?? new Int32Array(0),
    evalLoss: arrays.eval_loss?.data ?? new Float32Array(0),
    domains: header.domains,
    events: header.events,
    units: header.units,
  };
}

/** @param {ArrayLike<number>} values @param {number} from @param {number} to */
function mean(values, from, to) {
  let [sum, count] = [0, 0];
  for (let i = Math.max(0, from); i < Math.min(values.length, to); i += 1) {
    if (!Number.isFinite(values[i])) continue;
    sum += values[i];
    count += 1;
  }
  return sum / count;
}

/** @param {Data} data @returns {string} what happened, in one or two sentences */
export function sentence(data) {
  const { loss } = data.series;
  const count = Math.max(1, Math.min(10, Math.floor(loss.length / 4)));
  const first = mean(loss, 0, count);
  const last = mean(loss, loss.length - count, loss.length);
  const parts = [];
  if (Number.isFinite(first) && Number.isFinite(last) && loss.length > 1) {
    const verb = Math.abs(last - first) < 0.01 * Math.abs(first) ? "stayed near" : last < first ? "fell" : "rose";
    const change = verb === "stayed near" ? number(last) : `from ${number(first)} to ${number(last)}`;
    const basis = count > 1 ? ` (means of the first and last ${count} recorded steps)` : "";
    parts.push(`Training loss ${verb} ${change} ${data.units.loss}${basis}.`);
  }
  let bad = -1;
  for (let i = 0; i < loss.length && bad < 0; i += 1) if (!Number.isFinite(loss[i])) bad = i;
  if (bad >= 0) parts.push(`The loss is not a finite number at step ${data.steps[bad]}.`);
  const row = lastRow(data);
  if (row >= 0 && data.domains.length > 1) {
    const values = data.domains.map((_, d) => data.evalLoss[row * data.domains.length + d]);
    const finite = values.filter(Number.isFinite);
    const [worst, best] = [Math.max(...finite), Math.min(...finite)];
    const name = (/** @type {number} */ value) => `${data.domains[values.indexOf(value)]} (${number(value)})`;
    parts.push(`On held-out text it finds ${name(best)} easiest and ${name(worst)} hardest, in ${data.units.eval_loss}.`);
  }
  return parts.join(" ");
}

/** @param {Data} data @returns {number} the last evaluation that holds a number */
export function lastRow({ evalSteps, evalLoss, domains }) {
  for (let row = evalSteps.length - 1; row >= 0; row -= 1) {
    if (domains.some((_, d) => Number.isFinite(evalLoss[row * domains.length + d]))) return row;
  }
  return -1;
}

/** @param {Data} data @param {number} index @returns {[string, string][]} */
export function factsAt({ steps, series, smooth }, index) {
  const at = (/** @type {string} */ name) => (name in series ? series[name][index] : NaN);
  /** @type {[string, string][]} */
  const rows = [
    ["Step", grouped(steps[index])],
    ["Loss", number(at("loss"), 4)],
    ["Loss, smoothed", number(smooth[index], 4)],
    ["Learning rate", number(at("lr"))],
    ["Gradient norm", number(at("grad_norm"))],
    ["Tokens per second", Number.isFinite(at("tokens_per_second")) ? grouped(Math.round(at("tokens_per_second"))) : "no data"],
    ["Elapsed", duration(at("wall_seconds"))],
  ];
  return rows.filter(([, value]) => value !== "no data");
}

/** @param {Data} data @returns {import("./_frame.js").Table} at most about 200 rows; every evaluation is one of them */
export function tableOf(data) {
  const every = Math.ceil(data.steps.length / 200);
  const rowOf = new Map(Array.from(data.evalSteps, (step, row) => [step, row]));
  const names = Object.keys(data.series);
  const rows = [];
  const seen = new Set();
  for (let i = 0; i < data.steps.length; i += 1) {
    const row = rowOf.get(data.steps[i]);
    if (i % every !== 0 && row === undefined && i !== data.steps.length - 1) continue;
    seen.add(row);
    rows.push([data.steps[i], ...names.map((name) => number(data.series[name][i], 5)), ...evalCells(data, row)]);
  }
  data.evalSteps.forEach((step, row) => {
    if (!seen.has(row)) rows.push([step, ...names.map(() => ""), ...evalCells(data, row)]);
  });
  rows.sort((a, b) => Number(a[0]) - Number(b[0]));
  const caption = `Training and evaluation${every > 1 ? `, every ${every}th recorded step and every evaluation` : ""}. Loss in ${data.units.loss}, domains in ${data.units.eval_loss}.`;
  return { caption, head: ["Step", ...names.map((name) => NAMES[name] ?? name), ...data.domains], rows };
}

/** @param {Data} data @param {number | undefined} row @returns {string[]} */
function evalCells(data, row) {
  return data.domains.map((_, d) => {
    const value = row === undefined ? NaN : data.evalLoss[row * data.domains.length + d];
    return Number.isFinite(value) ? number(value, 4) : "";
  });
}
