// @ts-check
/** The numbers behind the timeline of offloading: reading, sentences, columns of the picture. */
import { grouped, number, percent, plural } from "./_number.js";
import { visible } from "./_tokens.js";

/**
 * @typedef {{
 *   steps: Int32Array, tokens: Int32Array, index: Int32Array, pieces: string[], kinds: string[], counts: Int32Array, stall: Float64Array, bytes: Float64Array,
 *   totals: Float64Array, sums: Float64Array, all: number, pagesEach: number | null,
 *   stalls: { moment: Int32Array, layer: Int32Array, expert: Int32Array, kind: Int32Array, seconds: Float64Array },
 * }} OffloadData one row per token; counts: by kind; stall [s]; all: tokens recorded; pagesEach: see slots()
 */

/** Requests, from the best to the worst; evictions are named beside the picture. @type {{ kind: string, word: string, hue: number, isStriped?: boolean }[]} */
export const SHOWN = [
  { kind: "hit", word: "hit", hue: 0 },
  { kind: "prefetch", word: "prefetched in time", hue: 4 },
  { kind: "host_compute", word: "computed on the host", hue: 3 },
  { kind: "prefetch_late", word: "prefetched too late", hue: 1, isStriped: true },
  { kind: "miss", word: "missed", hue: 5 },
];

/** Past so many tokens a column of the picture stands for several. */
export const MOST_COLUMNS = 400;

/** @param {import("./_payload.js").Payload} payload @returns {OffloadData} */
export function read({ header, arrays }) {
  const part = (/** @type {string} */ name) => arrays[`stalls.${name}`].data;
  return {
    steps: arrays.step.data, tokens: arrays.token.data, index: arrays.index.data, pieces: header.pieces, kinds: header.kinds, counts: arrays.counts.data,
    stall: arrays.stall.data, bytes: arrays.bytes.data, totals: arrays.totals.data, sums: arrays.sums.data, all: header.tokens, pagesEach: header.pages_each,
    stalls: { moment: part("moment"), layer: part("layer"), expert: part("expert"), kind: part("kind"), seconds: part("seconds") },
  };
}

/** @param {OffloadData} data @param {number} row @param {string} kind */
export function countAt({ counts, kinds }, row, kind) {
  const at = kinds.indexOf(kind);
  return at < 0 ? 0 : counts[row * kinds.length + at];
}

/** @param {OffloadData} data @param {string} kind */
export function total({ totals, kinds }, kind) {
  const at = kinds.indexOf(kind);
  return at < 0 ? 0 : totals[at];
}

/** @param {number} seconds @returns {string} */
export function wait(seconds) {
  return seconds === 0 ? "0 ms" : `${number(seconds * 1000, 3)} ms`;
}

/** @param {number} bytes @returns {string} */
function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let [value, unit] = [bytes, 0];
  while (value >= 1000 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${value < 10 && unit > 0 ? value.toFixed(1) : value.toFixed(0)} ${units[unit]}`;
}

/** @param {number} count @param {number | null} pagesEach pages that an expert has, null where a slot holds a whole one @returns {string} what fits into so many slots */
export function slots(count, pagesEach) {
  return plural(count, pagesEach === null ? "expert" : "page");
}

/** @param {number} pagesEach @returns {string} */
export function pagesWords(pagesEach) {
  return `an expert is ${Number.isInteger(pagesEach) ? plural(pagesEach, "page") : `${pagesEach.toFixed(2)} pages on average`}`;
}

/** @param {OffloadData} data @returns {string} */
export function sentence(data) {
  const requests = SHOWN.reduce((sum, { kind }) => sum + total(data, kind), 0);
  const ready = total(data, "hit") + total(data, "prefetch");
  const [stalled, moved] = data.sums;
  const computed = total(data, "host_compute");
  const there = computed > 0 ? `, ${percent(computed / requests)} were computed on the host, where theirs lay` : "";
  const pages = data.pagesEach === null ? "" : ` Requests are for pages: ${pagesWords(data.pagesEach)}.`;
  return `Over ${plural(data.all, "token")}, ${percent(ready / requests)} of ${plural(requests, "request")} found their ${data.pagesEach === null ? "expert" : "page"} at hand${there}.${pages} ` +
    `The computation waited ${wait(stalled)} in all, ${wait(stalled / data.all)} per token; ${size(moved)} were moved.`;
}

/** @param {OffloadData} data @param {number} row @returns {string} a token by its text or its number */
export function tokenName({ steps, tokens, pieces }, row) {
  const text = pieces[row] ? `“${visible(pieces[row])}”, ` : "";
  return `${text}step ${grouped(steps[row])}${tokens[row] > 0 ? `, token ${tokens[row]}` : ""}`;
}

/** @param {OffloadData} data @param {number} row @returns {string} */
export function rowWords(data, row) {
  const parts = [...SHOWN.map(({ kind, word }) => [countAt(data, row, kind), word]), [countAt(data, row, "evict"), "evicted"]];
  const said = parts.filter(([count]) => Number(count) > 0).map(([count, word]) => `${count} ${word}`);
  return `${tokenName(data, row)}: ${said.join(", ")}; waited ${wait(data.stall[row])}; ${size(data.bytes[row])} moved.`;
}

/**
 * Columns of the picture: a token each, or the mean of several and their longest wait.
 * @param {OffloadData} data
 */
export function columnsOf(data) {
  const each = Math.ceil(data.steps.length / MOST_COLUMNS);
  return Array.from({ length: Math.ceil(data.steps.length / each) }, (_, i) => {
    const rows = Array.from({ length: Math.min(each, data.steps.length - i * each) }, (__, j) => i * each + j);
    const counts = SHOWN.map(({ kind }) => rows.reduce((sum, row) => sum + countAt(data, row, kind), 0) / rows.length);
    return { counts, requests: counts.reduce((sum, count) => sum + count, 0), wait: Math.max(...rows.map((row) => data.stall[row])) * 1000 };
  });
}
