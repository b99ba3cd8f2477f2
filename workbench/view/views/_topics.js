// @ts-check
/** What a page knows of a run: the newest value of each topic, put together from its frames. */
import { isJson } from "./_frames.js";
import { grow } from "./_grow.js";
import { decode } from "./_payload.js";

/** Records of commands that a page keeps. */
const KEPT_RECORDS = 500;

/**
 * @typedef {import("./_frames.js").Frame} Frame
 * @typedef {{
 *   take: (frames: Frame[]) => Set<string>,
 *   offer: (topic: string, value: any) => boolean,
 *   get: (topic: string) => any,
 *   seq: (topic: string) => number,
 *   newest: () => { seq: number, step: number, time: number },
 * }} Topics take: returns the topics that changed; offer: a value for as long
 *   as no frame has brought one; seq: of the newest frame of a topic, 0 for none
 */

/** @returns {Topics} */
export function createTopics() {
  /** @type {Map<string, { seq: number, value: any }>} */
  const known = new Map();
  const newest = { seq: 0, step: 0, time: 0 };
  return {
    take(frames) {
      const changed = new Set();
      for (const frame of frames) {
        const before = known.get(frame.topic) ?? null;
        // A frame that comes twice, after a reconnection, must not be appended twice.
        if (before !== null && frame.seq <= before.seq) continue;
        known.set(frame.topic, { seq: frame.seq, value: valueAfter(frame.isWhole ? null : (before?.value ?? null), frame) });
        changed.add(frame.topic);
        if (frame.seq > newest.seq) Object.assign(newest, { seq: frame.seq, step: frame.step, time: frame.time });
      }
      return changed;
    },
    offer(topic, value) {
      if ((known.get(topic)?.seq ?? 0) > 0) return false;
      known.set(topic, { seq: 0, value });
      return true;
    },
    get: (topic) => known.get(topic)?.value ?? null,
    seq: (topic) => known.get(topic)?.seq ?? 0,
    newest: () => newest,
  };
}

/** @param {any} before null: nothing, or the frame replaces it @param {Frame} frame @returns {any} */
function valueAfter(before, { payload }) {
  if (!isJson(payload)) {
    const fresh = decode(payload);
    return fresh === null ? before : grow(before, fresh);
  }
  const value = JSON.parse(new TextDecoder().decode(payload));
  return Array.isArray(value) && Array.isArray(before) ? [...before, ...value].slice(-KEPT_RECORDS) : value;
}
