// @ts-check
/** What became of the command given here: sent, accepted, done at a step, or refused and why. */
import { h } from "./_dom.js";
import { grouped } from "./_number.js";

/**
 * @typedef {{
 *   element: HTMLElement,
 *   send: (op: string, args: Record<string, any>, what: string) => void,
 *   hear: (records: Record<string, import("./_frame.js").CommandRecord>) => void,
 *   last: () => { op: string, args: Record<string, any> } | null,
 * }} Ack send: `what` names the command for people; last: the command that was sent last
 */

/** @param {import("./_frame.js").Frame} frame @param {(record: import("./_frame.js").CommandRecord) => void} [onEnd] hears of a command that was done or refused @returns {Ack} */
export function createAck(frame, onEnd = () => {}) {
  const element = h("p", { class: "moe-said", role: "status" });
  /** @type {Record<string, import("./_frame.js").CommandRecord>} */
  let known = {};
  let [id, what, ended] = ["", "", ""];
  /** @type {{ op: string, args: Record<string, any> } | null} */
  let last = null;
  const tell = () => {
    const record = known[id];
    if (record === undefined) return;
    element.textContent = words(record, what);
    element.classList.toggle("moe-refused", record.status === "refused");
    if (ended === id || (record.status !== "applied" && record.status !== "refused")) return;
    ended = id;
    onEnd(record);
  };
  return {
    element,
    send(op, args, name) {
      what = name;
      last = { op, args };
      element.textContent = `Sent: ${name}.`;
      element.classList.remove("moe-refused");
      id = frame.command(op, args);
      tell();
    },
    hear(records) {
      known = records;
      tell();
    },
    last: () => last,
  };
}

/** @param {import("./_frame.js").CommandRecord} record @param {string} what @returns {string} */
function words({ status, step, reason }, what) {
  const at = Number.isFinite(step) && step >= 0 ? ` at step ${grouped(step)}` : "";
  if (status === "applied") return `Done${at}: ${what}.`;
  if (status === "refused") return `Refused: ${what}. ${reason ?? ""}`;
  return status === "accepted" ? `Accepted: ${what}. It takes effect with the next step.` : `Sent: ${what}.`;
}
