// @ts-check
/** The life of every command given on this page, and of those that others gave: sent, accepted, applied or refused. */

import { pythonLine } from "./_python.js";

const RANK = { sent: 0, accepted: 1, refused: 2, applied: 2 };
const KEPT = 500;
/** Waits between the tries to hand a command over [ms]; the id makes a second delivery harmless. */
const RETRIES = [400, 1200];

/**
 * @typedef {"sent" | "accepted" | "applied" | "refused"} Status
 * @typedef {{ id: string, op: string, args: Record<string, any>, status: Status, actor: string, step: number | null, reason: string,
 *   time: number, python: string, result: any, code: number, isOwn: boolean }} CommandRecord time: [s since the epoch]; code: of the answer, as in HTTP, 0 before
 * @typedef {{ status: "accepted" | "refused", code?: number, reason?: string, step?: number | null }} Ack
 * @typedef {{
 *   send: (op: string, args?: Record<string, any>, id?: string) => string,
 *   merge: (records: any[]) => void,
 *   list: () => CommandRecord[],
 *   actor: () => string,
 *   again: () => void,
 * }} Commands actor: who this page is to the run, "" until a command told; again: hands over
 *   once more what nobody has answered
 */

/** @returns {string} unique, also where the page is not a secure context */
function newId() {
  const words = crypto.getRandomValues(new Uint32Array(4));
  return Array.from(words, (word) => word.toString(16).padStart(8, "0")).join("");
}

/**
 * @param {(command: { id: string, op: string, args: Record<string, any> }) => Promise<Ack>} post rejects when nobody answered
 * @param {() => void} onChange
 * @returns {Commands}
 */
export function createCommands(post, onChange) {
  /** @type {Map<string, CommandRecord>} oldest first */
  const known = new Map();
  let own = "";
  const merge = (/** @type {any[]} */ records) => {
    for (const record of records) {
      const after = merged(known.get(record.id) ?? null, record);
      known.set(record.id, after);
      if (after.isOwn && after.actor !== "") own = after.actor;
    }
    forget(known);
    onChange();
  };
  const deliver = async (/** @type {{ id: string, op: string, args: Record<string, any> }} */ command) => {
    for (let tries = 0; ; tries += 1) {
      try {
        const { status, code = 0, reason = "", step = null } = await post(command);
        return merge([{ id: command.id, status, code, reason, step }]);
      } catch (error) {
        if (tries < RETRIES.length) await new Promise((done) => setTimeout(done, RETRIES[tries]));
        else return merge([{ id: command.id, status: "refused", reason: `nobody answered (${messageOf(error)}); give it again once the page is connected` }]);
      }
    }
  };
  return {
    send(op, args = {}, id = newId()) {
      if (known.has(id)) return id;
      known.set(id, { ...blank(id), op, args, python: pythonLine(op, args), time: Date.now() / 1000, isOwn: true });
      onChange();
      void deliver({ id, op, args });
      return id;
    },
    merge,
    list: () => [...known.values()],
    actor: () => own,
    again() {
      for (const { id, op, args, status, isOwn } of known.values()) if (isOwn && status === "sent") void deliver({ id, op, args });
    },
  };
}

/** @param {any} error @returns {string} */
function messageOf(error) {
  return error instanceof Error ? error.message : String(error);
}

/** @param {string} id @returns {CommandRecord} */
function blank(id) {
  return { id, op: "", args: {}, status: "sent", actor: "", step: null, reason: "", time: 0, python: "", result: null, code: 0, isOwn: false };
}

/**
 * What is known after another message about a command; an answer that was overtaken changes nothing that is newer.
 * @param {CommandRecord | null} before @param {any} news @returns {CommandRecord}
 */
function merged(before, news) {
  const old = before ?? blank(news.id);
  const isOlder = (RANK[/** @type {Status} */ (news.status)] ?? 0) < RANK[old.status];
  const given = Object.fromEntries(Object.entries(news).filter(([, value]) => value !== null && value !== undefined && value !== ""));
  return isOlder ? { ...old, ...Object.fromEntries(Object.entries(given).filter(([name]) => isUnknown(old, name))) } : { ...old, ...given };
}

/** @param {any} record @param {string} name @returns {boolean} */
function isUnknown(record, name) {
  return record[name] === null || record[name] === "" || record[name] === undefined;
}

/** @param {Map<string, CommandRecord>} known */
function forget(known) {
  for (const id of known.keys()) {
    if (known.size <= KEPT) return;
    known.delete(id);
  }
}
