// @ts-check
/** Numbers as people read them. NaN is "no data", never 0. */

// Made once: making one costs more than a thousand uses of it.
const GROUPED = new Intl.NumberFormat("en-US");
const WHOLE = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const ROUND = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 6 });

/** @param {number} value a count or a step @returns {string} "12,345" */
export function grouped(value) {
  return GROUPED.format(value);
}

/** @param {number} value @param {number} [digits] significant digits @returns {string} */
export function number(value, digits = 3) {
  if (!Number.isFinite(value)) return "no data";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(Math.max(0, digits - 1)).replace("e+", "e");
  if (size >= 10 ** (digits - 1)) return WHOLE.format(value);
  return value.toPrecision(digits);
}

/** @param {number} share 0..1 @returns {string} */
export function percent(share) {
  if (!Number.isFinite(share)) return "no data";
  const value = share * 100;
  // No-break space: a number never parts from its unit.
  if (share === 0) return "0\u00a0%";
  if (value < 0.1) return "<\u00a00.1\u00a0%";
  return `${value < 10 ? value.toFixed(1) : value.toFixed(0)}\u00a0%`;
}

/** @param {number} ratio @returns {string} */
export function times(ratio) {
  if (!Number.isFinite(ratio)) return "no data";
  return `${ratio < 10 ? ratio.toFixed(1) : ratio.toFixed(0)}×`;
}

/** @param {number} seconds @returns {string} */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "no data";
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60);
  const rest = String(Math.floor(seconds % 60)).padStart(2, "0");
  return minutes < 60 ? `${minutes} min ${rest} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** @param {number} count @param {string} noun singular @returns {string} */
export function plural(count, noun) {
  return `${grouped(count)} ${noun}${count === 1 ? "" : "s"}`;
}

/** @param {(string | number)[]} names @returns {string} "1, 2 and 3" */
export function listed(names) {
  if (names.length <= 1) return names.join("");
  return `${names.slice(0, -1).join(", ")} and ${names[names.length - 1]}`;
}

/**
 * Round tick positions that cover low..high.
 * @param {number} low @param {number} high @param {number} count about how many
 * @returns {number[]}
 */
export function ticks(low, high, count) {
  if (!(high > low)) return [low];
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough) ?? rough;
  const out = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) {
    out.push(Number((i * step).toPrecision(12)));
  }
  return out;
}

/** @param {number} low @param {number} high @returns {number[]} round positions on a log axis */
export function logTicks(low, high) {
  if (high / low < 12) return ticks(low, high, 5);
  const out = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const factor of high / low < 1000 ? [1, 2, 5] : [1]) {
      const value = Number((factor * 10 ** power).toPrecision(6));
      if (value >= low && value <= high) out.push(value);
    }
  }
  return out;
}

/** @param {number} value @returns {string} a round position on an axis, without empty decimals */
export function tickText(value) {
  const size = Math.abs(value);
  if (value !== 0 && (size >= 1e6 || size < 1e-4)) return value.toExponential().replace("e+", "e");
  return ROUND.format(value);
}

/**
 * Index of the nearest value in an ascending array.
 * @param {ArrayLike<number>} sorted @param {number} value @returns {number} -1 when empty
 */
export function nearest(sorted, value) {
  let low = 0;
  let high = sorted.length - 1;
  if (high < 0) return -1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= value) low = middle;
    else high = middle;
  }
  return Math.abs(sorted[high] - value) < Math.abs(sorted[low] - value) ? high : low;
}
