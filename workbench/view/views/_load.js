// @ts-check
/** Load of every (layer, expert) over a window of steps, and what it means in words. */
import { listed, percent, plural, times } from "./_number.js";

/** Words have limits, printed in the view: no assignment at all; under a tenth; over twice the fair share. */
export const STARVED = 0.1;
export const OVERLOADED = 2;

/**
 * @typedef {{
 *   steps: Int32Array, rows: Int32Array, tokens: Float64Array, layers: number[], experts: number, load: Float32Array, total: Float64Array,
 *   count: { data: Float64Array, perExpert: boolean }, extras: Record<string, Float32Array>,
 *   events: import("./_axes.js").Flag[], balance: number[],
 * }} LoadData balance: `imbalance` of every kept step; load: at each kept step; total and count: sums, weighted by tokens, over every recorded step up to it
 * @typedef {{ load: number, ratio: number, kind: "" | "none" | "starved" | "overloaded" | "empty" }} Cell
 */

/**
 * @param {import("./_payload.js").Payload} payload @param {string} phase
 * @param {LoadData | null} [before] what was read last: of a payload that has grown only the new steps are judged
 * @returns {LoadData}
 */
export function readLoad({ header, arrays }, phase, before = null) {
  const part = (/** @type {string} */ name) => arrays[`${phase}.${name}`];
  const data = {
    steps: part("step").data,
    rows: part("row").data,
    tokens: part("tokens").data,
    layers: Array.from(arrays.layer.data),
    experts: part("load").shape[2],
    load: part("load").data,
    total: part("total").data,
    count: { data: part("count").data, perExpert: part("count").shape[2] > 1 },
    extras: Object.fromEntries(header.extras.map((/** @type {string} */ name) => [name, part(name).data])),
    events: phase === "train" || phase === "eval" ? header.events : [],
    balance: /** @type {number[]} */ ([]),
  };
  const isSame = before !== null && before.load.buffer === data.load.buffer && before.load.byteOffset === data.load.byteOffset && before.experts === data.experts;
  if (isSame) data.balance = before.balance;
  for (let i = data.balance.length; i < data.steps.length; i += 1) data.balance.push(imbalance(data, i));
  return data;
}

/** @param {LoadData} data @param {number} index @param {number} layer @param {number} expert */
function countAt({ layers, experts, count }, index, layer, expert) {
  if (index < 0) return 0;
  return known(count.perExpert ? count.data[(index * layers.length + layer) * experts + expert] : count.data[index * layers.length + layer]);
}

/** @param {number} sum @returns {number} a running sum: nothing yet where an expert came later */
function known(sum) {
  return Number.isNaN(sum) ? 0 : sum;
}

/**
 * Mean load over the recorded steps after kept step `from` up to kept step `to`.
 * @param {LoadData} data @param {number} from kept index, -1 for the beginning @param {number} to kept index
 * @returns {ArrayLike<number>} layer-major; NaN where nothing was routed
 */
export function meanLoad(data, from, to) {
  const { layers, experts, load, total, rows } = data;
  const size = layers.length * experts;
  // One recorded step: its own numbers, without the rounding of a difference of sums.
  if (rows[to] - (from < 0 ? -1 : rows[from]) === 1) return load.subarray(to * size, (to + 1) * size);
  const out = new Float64Array(size);
  for (let cell = 0; cell < size; cell += 1) {
    const [layer, expert] = [Math.floor(cell / experts), cell % experts];
    const count = countAt(data, to, layer, expert) - countAt(data, from, layer, expert);
    const sum = known(total[to * size + cell]) - (from < 0 ? 0 : known(total[from * size + cell]));
    out[cell] = count > 0 ? sum / count : NaN;
  }
  return out;
}

/** @param {LoadData} data @param {ArrayLike<number>} mean @returns {Cell[][]} by layer, then expert */
export function cells({ layers, experts }, mean) {
  return layers.map((_, layer) => {
    const values = Array.from({ length: experts }, (_, expert) => mean[layer * experts + expert]);
    const fair = 1 / Math.max(1, values.filter(Number.isFinite).length);
    return values.map((load) => ({ load, ratio: load / fair, kind: kindOf(load, load / fair) }));
  });
}

/** @param {number} load @param {number} ratio @returns {Cell["kind"]} */
function kindOf(load, ratio) {
  if (!Number.isFinite(load)) return "empty";
  if (load === 0) return "none";
  if (ratio < STARVED) return "starved";
  return ratio > OVERLOADED ? "overloaded" : "";
}

/** @param {Pick<LoadData, "layers" | "experts" | "load">} data @param {number} index kept step @returns {number} busiest expert over fair share, mean of layers */
export function imbalance(data, index) {
  const { layers, experts, load } = data;
  let [sum, count] = [0, 0];
  for (let layer = 0; layer < layers.length; layer += 1) {
    let [most, present] = [-Infinity, 0];
    for (let expert = 0; expert < experts; expert += 1) {
      const value = load[(index * layers.length + layer) * experts + expert];
      if (!Number.isFinite(value)) continue;
      most = Math.max(most, value);
      present += 1;
    }
    if (present > 0) {
      sum += most * present;
      count += 1;
    }
  }
  return count > 0 ? sum / count : NaN;
}

/** @param {Cell[][]} grid @param {(cell: Cell) => boolean} test @returns {{ layer: number, expert: number, cell: Cell }[]} */
function where(grid, test) {
  return grid.flatMap((row, layer) => row.flatMap((cell, expert) => (test(cell) ? [{ layer, expert, cell }] : [])));
}

/** @param {LoadData} data @param {Cell[][]} grid @param {string} when @returns {string} */
export function headline({ layers }, grid, when) {
  const finite = where(grid, ({ kind }) => kind !== "empty");
  if (finite.length === 0) return `${when} nothing was routed.`;
  const top = finite.reduce((best, place) => (place.cell.ratio > best.cell.ratio ? place : best));
  const idle = where(grid, ({ kind }) => kind === "none").length;
  const even = `${when} the work is even: no expert takes more than ${times(top.cell.ratio)} its fair share.`;
  const busiest = top.cell.ratio < 1.1 ? even :
    `${when} the busiest is expert ${top.expert} of layer ${layers[top.layer]}: ${percent(top.cell.load)} of its layer's assignments, ` +
    `${times(top.cell.ratio)} its fair share.`;
  const rest = idle > 0 ? `${plural(idle, "expert")} of ${finite.length} got no tokens at all.` : "Every expert got tokens.";
  return `${busiest} ${rest}`;
}

/**
 * Dead and overloaded experts by name, the worst layers first.
 * @param {LoadData} data @param {Cell[][]} grid @param {number} limit
 * @returns {{ mark: string, text: string }[]}
 */
export function findings({ layers }, grid, limit) {
  const found = grid.flatMap((row, layer) => {
    const name = `Layer ${layers[layer]}`;
    const of = (/** @type {Cell["kind"]} */ kind) => row.flatMap((cell, expert) => (cell.kind === kind ? [expert] : []));
    const [none, starved] = [of("none"), of("starved")];
    const over = of("overloaded").sort((a, b) => row[b].ratio - row[a].ratio);
    const out = [];
    if (none.length > 0) {
      out.push({ mark: "×", weight: 100 + none.length, text: `${name}: ${who(none)} got no tokens (dead while this lasts).` });
    }
    if (over.length > 0) {
      const detail = over.slice(0, 4).map((expert) => `${expert} (${percent(row[expert].load)}, ${times(row[expert].ratio)})`);
      const rest = over.length > 4 ? [`${over.length - 4} more`] : [];
      const verb = over.length === 1 ? "is" : "are";
      out.push({ mark: "▲", weight: row[over[0]].ratio, text: `${name}: ${noun(over)} ${listed([...detail, ...rest])} ${verb} overloaded.` });
    }
    if (starved.length > 0) out.push({ mark: "▽", weight: 1, text: `${name}: ${who(starved)} got under a tenth of a fair share.` });
    return out;
  });
  found.sort((a, b) => b.weight - a.weight);
  const shown = found.slice(0, limit);
  if (found.length > limit) shown.push({ mark: "…", weight: 0, text: `${plural(found.length - limit, "more finding")}: see the numbers below.` });
  return shown;
}

/** @param {number[]} experts */
function noun(experts) {
  return experts.length === 1 ? "expert" : "experts";
}

/** @param {number[]} experts @returns {string} */
function who(experts) {
  const shown = experts.length > 12 ? [...experts.slice(0, 11), `${experts.length - 11} more`] : experts;
  return `${noun(experts)} ${listed(shown)}`;
}
