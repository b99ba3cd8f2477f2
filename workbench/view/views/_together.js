// @ts-check
/** Which experts go together: reading the tables, judging pairs against chance, sentences. */
import { listed, percent, plural, times } from "./_number.js";
import { diverging } from "./_palette.js";

/** Below so many tokens expected by chance a ratio is noise, and is not judged. */
export const ENOUGH = 5;

/**
 * @typedef {{ key: string, name: string, layers: number[], experts: number[], tokens: number[], routers: string[] }} Kind
 * @typedef {{ data: Float32Array, width: number }} Table by layer, then row, then column
 * @typedef {{
 *   kind: Kind, width: number, share: Float32Array, ratio: Float32Array, expected: Float32Array,
 *   nextShare: Float32Array, nextRatio: Float32Array, nextExpected: Float32Array, nextTokens: Float32Array,
 * }} TogetherData tables by layer, expert and expert
 * @typedef {{ row: number, column: number, tokens: number, ratio: number, share: number, surprise: number }} Pair
 *   surprise: how far from chance, in standard deviations of what is expected
 */

/** @param {import("./_payload.js").Payload} payload @param {string} key @returns {TogetherData} */
export function readTogether({ header, arrays }, key) {
  const part = (/** @type {string} */ name) => arrays[`${key}.${name}`];
  const kind = header.kinds.find((/** @type {Kind} */ candidate) => candidate.key === key);
  return {
    kind,
    width: part("share").shape[1],
    share: part("share").data,
    ratio: part("ratio").data,
    expected: part("expected").data,
    nextShare: part("next_share").data,
    nextRatio: part("next_ratio").data,
    nextExpected: part("next_expected").data,
    nextTokens: part("next_tokens").data,
  };
}

/** @param {TogetherData} data @param {boolean} isNext @param {number} layer @param {number} row @param {number} column @returns {Pair} */
export function pairAt(data, isNext, layer, row, column) {
  const at = (layer * data.width + row) * data.width + column;
  const [ratio, expected] = isNext ? [data.nextRatio[at], data.nextExpected[at]] : [data.ratio[at], data.expected[at]];
  const tokens = isNext ? data.nextShare[at] * data.nextTokens[layer * data.width + row] : data.share[at] * data.kind.tokens[layer];
  const share = isNext ? data.nextShare[at] : data.share[at];
  return { row, column, tokens, ratio, share, surprise: expected >= ENOUGH ? (tokens - expected) / Math.sqrt(expected) : NaN };
}

/** @param {TogetherData} data @param {boolean} isNext @param {number} layer @returns {[number, number]} experts of the rows and of the columns */
export function sizes({ kind }, isNext, layer) {
  return [kind.experts[layer], kind.experts[isNext ? layer + 1 : layer]];
}

/** @param {TogetherData} data @param {boolean} isNext @param {number} layer @returns {Pair[]} every pair once */
export function pairs(data, isNext, layer) {
  const [rows, columns] = sizes(data, isNext, layer);
  const out = [];
  for (let row = 0; row < rows; row += 1) {
    for (let column = isNext ? 0 : row + 1; column < columns; column += 1) out.push(pairAt(data, isNext, layer, row, column));
  }
  return out;
}

/** @param {Pair[]} all @returns {Pair[]} those that stand out upwards most, at least two standard deviations */
export function strongest(all) {
  return all.filter(({ surprise }) => surprise >= 2).sort((a, b) => b.surprise - a.surprise);
}

/** @param {number} ratio @returns {string} "2.3×", "0.25×", "never" */
export function ratioText(ratio) {
  if (!Number.isFinite(ratio)) return "no data";
  if (ratio === 0) return "never";
  return ratio >= 1 ? times(ratio) : `${ratio.toFixed(2)}×`;
}

/** @param {Pair} pair @param {boolean} isDark @returns {import("./_matrix.js").MatrixCell} */
export function cellOf({ ratio, surprise, tokens }, isDark) {
  if (!Number.isFinite(ratio)) return { fill: null, text: "" };
  if (!Number.isFinite(surprise)) return { fill: null, text: "", isOpen: tokens > 0 };
  const share = ratio === 0 ? -1 : Math.log2(ratio) / 2;
  return { fill: diverging(share, isDark), text: ratio === 0 ? "0" : ratio.toFixed(ratio < 0.095 ? 2 : ratio < 9.95 ? 1 : 0), sign: share >= 0.5 ? "+" : share <= -0.5 ? "−" : "" };
}

/** @param {number} tokens @returns {string} */
function count(tokens) {
  return Number.isInteger(tokens) || tokens >= 10 ? plural(Math.round(tokens), "token") : `${tokens.toFixed(1)} tokens`;
}

/** @param {TogetherData} data @param {boolean} isNext @param {number} layer @param {Pair} pair @returns {string} */
export function pairWords(data, isNext, layer, { row, column, tokens, ratio, share, surprise }) {
  const { layers } = data.kind;
  const judged = Number.isFinite(surprise) ? `${ratioText(ratio)} what chance would give` : "too few expected by chance to judge";
  if (isNext) {
    if (!Number.isFinite(share)) return `Expert ${row} of layer ${layers[layer]} has no tokens here.`;
    return `Expert ${row} of layer ${layers[layer]} → expert ${column} of layer ${layers[layer + 1]}: ${count(tokens)}, ${percent(share)} of its tokens; ${judged}.`;
  }
  if (row === column) return `Expert ${row} of layer ${layers[layer]} serves ${count(tokens)}, ${percent(share)} of them.`;
  return `Experts ${row} and ${column} of layer ${layers[layer]} serve the same ${count(tokens)}, ${percent(share)}; ${Number.isFinite(ratio) ? judged : "nothing is expected by chance"}.`;
}

/** @param {TogetherData} data @param {boolean} isNext @param {number} layer @returns {string} the finding in a sentence or two */
export function finding(data, isNext, layer) {
  const { kind } = data;
  const over = `${plural(kind.tokens[layer], "token")} of ${kind.name}${kind.routers.length > 0 ? `, routed by ${listed(kind.routers)}` : ""}`;
  const all = pairs(data, isNext, layer);
  const best = strongest(all)[0];
  const where = isNext ? `From layer ${kind.layers[layer]} to layer ${kind.layers[layer + 1]}` : `In layer ${kind.layers[layer]}`;
  if (kind.tokens[layer] === 0) return `${where} no token was routed.`;
  if (!isNext && all.every(({ tokens }) => !(tokens > 0))) return `${where} no two experts ever serve the same token (${over}).`;
  if (all.every(({ surprise }) => !Number.isFinite(surprise))) return `${where} there are too few tokens to tell a pair from chance (${over}).`;
  if (best === undefined) return `${where} no pair of experts stands out from chance (${over}).`;
  const { row, column, tokens, ratio, share } = best;
  if (isNext) return `${where} the strongest link leads from expert ${row} to expert ${column}: ${percent(share)} of its tokens, ${ratioText(ratio)} what chance would give (${over}).`;
  return `${where} experts ${row} and ${column} go together most: they share ${count(tokens)}, ${ratioText(ratio)} what chance would give (${over}).`;
}
