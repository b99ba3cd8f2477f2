// @ts-check
/** Tokens with their experts: reading the payload, safe text, colours for any number of experts, sentences. */
import { grouped, number, percent, plural } from "./_number.js";
import { hues, inkOn } from "./_palette.js";

/**
 * @typedef {{ name: string, kind: string, step: number, start: number, stop: number, routers: string[] }} Passage
 * @typedef {{
 *   passages: Passage[], pieces: string[], places: { name: string, layer: number }[], experts: number, slots: number, domains: string[],
 *   expert: Int16Array, weight: Float32Array, kept: Uint8Array,
 *   index: Int32Array, tokenId: Int32Array, position: Int32Array, sequence: Int32Array, phase: Int16Array, domain: Int16Array, phases: string[],
 * }} TokenData expert, weight, kept: token-major, then place, then choice (largest weight first); expert -1 is no choice
 * @typedef {{ expert: number, weight: number, isKept: boolean }} Choice
 * @typedef {{ kind: "solid" | "hollow" | "plain", hue: string, ink: string }} Look
 */

/** @param {import("./_payload.js").Payload} payload @returns {TokenData} */
export function readTokens({ header, arrays }) {
  const { passages, pieces, places, experts, domains, phases } = header;
  return {
    passages, pieces, places, experts, domains, phases,
    slots: arrays.expert.shape[2],
    expert: arrays.expert.data,
    weight: arrays.weight.data,
    kept: arrays.kept.data,
    index: arrays.index.data,
    tokenId: arrays.token_id.data,
    position: arrays.position.data,
    sequence: arrays.sequence.data,
    phase: arrays.phase.data,
    domain: arrays.domain.data,
  };
}

/** @param {TokenData} data @param {number} token @param {number} place @param {number} slot @returns {Choice} */
export function choiceAt({ places, slots, expert, weight, kept }, token, place, slot) {
  const at = (token * places.length + place) * slots + slot;
  return { expert: expert[at], weight: weight[at], isKept: kept[at] === 1 };
}

/** @param {TokenData} data @param {number} token @param {number} place @returns {Choice[]} the choices made, largest weight first */
export function choicesOf(data, token, place) {
  return Array.from({ length: data.slots }, (_, slot) => choiceAt(data, token, place, slot)).filter(({ expert }) => expert >= 0);
}

/**
 * Token text that can be seen and cannot act: white space gets signs, control and direction characters their number.
 * @param {string} piece @returns {string}
 */
export function visible(piece) {
  if (piece === "") return "∅";
  const signs = piece.replaceAll("\r", "␍").replaceAll("\n", "↵").replaceAll("\t", "⇥");
  const text = signs.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\u2028\u2029]/gu, (sign) => `\\u${(sign.codePointAt(0) ?? 0).toString(16)}`);
  const shown = /^ +$/.test(text) ? text.replaceAll(" ", "␣") : text;
  const characters = Array.from(shown);
  return characters.length > 40 ? characters.slice(0, 39).join("") + "…" : shown;
}

/**
 * How often each expert is the chosen one in a passage.
 * @param {TokenData} data @param {Passage} passage @param {number} place @param {number} slot
 * @returns {Int32Array}
 */
export function tally(data, { start, stop }, place, slot) {
  const counts = new Int32Array(data.experts);
  for (let token = start; token < stop; token += 1) {
    const { expert } = choiceAt(data, token, place, slot);
    if (expert >= 0) counts[expert] += 1;
  }
  return counts;
}

/**
 * Eight hues, and never more: up to 16 experts take hue and band (filled, then outlined); of more than 16 the eight
 * busiest of this passage and layer are coloured. Every token carries its expert's number in any case.
 * @param {number} experts @param {ArrayLike<number>} counts @param {boolean} isDark
 * @returns {(expert: number) => Look}
 */
export function looks(experts, counts, isDark) {
  const palette = hues(isDark);
  const look = (/** @type {"solid" | "hollow"} */ kind, /** @type {number} */ i) => ({ kind, hue: palette[i], ink: inkOn(palette[i]) });
  if (experts <= 16) return (expert) => look(expert < 8 ? "solid" : "hollow", expert % 8);
  const busiest = Array.from(counts, (_, expert) => expert).sort((a, b) => counts[b] - counts[a]).slice(0, 8);
  return (expert) => {
    const rank = busiest.indexOf(expert);
    return rank >= 0 ? look("solid", rank) : { kind: "plain", hue: "", ink: "" };
  };
}

/** @param {number} experts @returns {string} what the colours mean */
export function colourRule(experts) {
  if (experts <= 8) return "One colour per expert.";
  if (experts <= 16) return "Filled band: experts 0 to 7. Outlined band: experts 8 to 15.";
  return "Coloured: the eight experts chosen most often here. All others are grey; their number says who they are.";
}

/** @param {TokenData} data @param {Passage} passage @param {number} place @param {number} slot @param {Passage | null} before the same text, earlier */
export function passageSentence(data, passage, place, slot, before) {
  const counts = tally(data, passage, place, slot);
  const used = counts.filter((count) => count > 0).length;
  const total = passage.stop - passage.start;
  if (used === 0) return `In ${data.places[place].name} none of these ${plural(total, "token")} has an expert at this choice.`;
  const top = counts.indexOf(Math.max(...counts));
  const router = passage.routers[place] ? `, routed by ${passage.routers[place]},` : "";
  const parts = [
    `In ${data.places[place].name} these ${plural(total, "token")}${router} go to ${used} of ${data.experts} experts; ` +
      `expert ${top} takes the most, ${counts[top]} (${percent(counts[top] / total)}).`,
  ];
  if (before !== null) {
    let moved = 0;
    for (let i = 0; i < total; i += 1) {
      if (choiceAt(data, passage.start + i, place, slot).expert !== choiceAt(data, before.start + i, place, slot).expert) moved += 1;
    }
    parts.push(`Since step ${grouped(before.step)}${before.routers[place] === passage.routers[place] ? "" : ` (${before.routers[place]})`}, ${moved === 0 ? "none" : `${moved} (${percent(moved / total)})`} of them changed expert.`);
  }
  return parts.join(" ");
}

/** @param {TokenData} data @param {Passage} a @param {Passage} b @returns {boolean} the same tokens in the same order */
export function isSameText({ tokenId }, a, b) {
  if (a.stop - a.start !== b.stop - b.start) return false;
  for (let i = 0; i < a.stop - a.start; i += 1) if (tokenId[a.start + i] !== tokenId[b.start + i]) return false;
  return true;
}

/** @param {Choice[]} choices @returns {string} */
export function choicesSentence(choices) {
  if (choices.length === 0) return "no expert";
  return choices.map(({ expert, weight, isKept }) => `expert ${expert} (${isKept ? `weight ${number(weight)}` : "dropped: no capacity left"})`).join(", ");
}
