// @ts-check
/** What a reader should know now, in sentences, each with the press that answers it. */
import { button, h } from "./_dom.js";
import { actionOf, balanceSentence, statusOf } from "./_words.js";

/**
 * @typedef {import("./_commands.js").CommandRecord} CommandRecord
 * @typedef {{ key: string, tone: "care" | "go" | "plain", text: string, code?: string, presses?: [string, () => void][], isClosable?: boolean }} Notice
 * @typedef {{
 *   act: (op: string, args?: Record<string, any>) => void,
 *   open: (tab: string, view?: string) => void,
 *   hasTab: (tab: string) => boolean,
 * }} Presses
 */

/**
 * @param {any} state @param {CommandRecord[]} records @param {string} actor who this page is, "" when nobody knows
 * @param {Presses} presses
 * @returns {Notice[]} the most urgent first
 */
export function noticesOf(state, records, actor, presses) {
  const found = [startNotice(state), endNotice(state), driverNotice(state, records, actor, presses)];
  if (statusOf(state.status).isOver !== true) {
    found.push(swapNotice(state, records, presses), ...steeringNotices(state, presses), balanceNotice(state, presses));
  }
  return found.filter((notice) => notice !== null);
}

/** @param {any} state @returns {Notice | null} */
function startNotice({ status, queue, queue_place: place }) {
  if (status !== "starting") return null;
  const waits = queue && place > 0 ? `It waits for the ${queue}: place ${place} in the queue.` : "The model and its data are being made ready; this takes a few seconds.";
  return { key: "starting", tone: "go", text: waits };
}

/** @param {any} state @returns {Notice | null} */
function endNotice({ status, error, step }) {
  const { meaning, isOver, word } = statusOf(status);
  if (isOver !== true && !error) return null;
  if (isOver !== true) return { key: "error", tone: "care", text: "The run reports a problem and goes on:", code: error };
  const at = `${word} at step ${(step ?? 0).toLocaleString("en-US")}. ${meaning}`;
  return { key: status, tone: status === "crashed" || status === "lost" ? "care" : "go", text: at, code: error ?? "" };
}

/** @param {any} state @param {CommandRecord[]} records @param {string} actor @param {Presses} presses @returns {Notice | null} */
function driverNotice({ driver, status }, records, actor, { act }) {
  if (!driver || driver === actor || statusOf(status).isOver) return null;
  const last = records.filter(({ isOwn }) => isOwn).pop();
  const isRefused = last?.status === "refused" && last.code === 403;
  if (actor === "" && !isRefused) return null;
  const text = `This run is driven by ${driver}: you can watch, and your commands are refused until you take over.`;
  return { key: `driver ${driver}`, tone: "care", text, presses: [["Take over", () => act("take_over")]] };
}

/** @param {any} state @param {CommandRecord[]} records @param {Presses} presses @returns {Notice | null} */
function swapNotice(state, records, { act, open, hasTab }) {
  const last = records.filter(({ op, status }) => ["swap_router", "undo", "rewind", "reset"].includes(op) && status === "applied").pop();
  if (last === undefined || last.op !== "swap_router" || last.step === null) return null;
  const text = `${actionOf(last)}: applied at step ${last.step.toLocaleString("en-US")}.`;
  /** @type {[string, () => void][]} */
  const presses = hasTab("routers") ? [["See which tokens moved", () => open("routers", "router_swap")]] : [];
  if (state.can_undo) presses.push(["Undo", () => act("undo")]);
  return { key: `swap ${last.id}`, tone: "go", text, presses, isClosable: true };
}

/** @param {any} state @param {Presses} presses @returns {Notice[]} */
function steeringNotices({ steering }, { act }) {
  const words = { pin: "pinned: every token goes there", ban: "banned: no token goes there", bias: "biased" };
  return (steering ?? []).slice(0, 4).map((/** @type {any} */ { layer, expert, kind, bias }) => {
    const by = kind === "bias" ? ` by ${bias > 0 ? "+" : ""}${bias}` : "";
    const text = `Expert ${expert} of layer ${layer} is ${words[/** @type {keyof typeof words} */ (kind)] ?? kind}${by}. What you see includes this.`;
    /** @type {[string, () => void]} */
    const press = ["Take it back", () => act("bias_expert", { layer, expert, bias: 0 })];
    return { key: `steer ${layer} ${expert} ${kind} ${bias}`, tone: "plain", text, presses: [press] };
  });
}

/** @param {any} state @param {Presses} presses @returns {Notice | null} */
function balanceNotice(state, { open, hasTab }) {
  const total = (state.num_layers ?? 0) * (state.num_experts ?? 0);
  const text = balanceSentence(state.idle_experts, state.overloaded_experts, total);
  if (text === "") return null;
  return { key: "balance", tone: "plain", text, presses: hasTab("training") ? [["Show them", () => open("training", "expert_load")]] : [], isClosable: true };
}

/** @param {HTMLElement} host where the notices are shown @returns {(notices: Notice[]) => void} changes only what differs, so that a button under the finger stays */
export function createNotices(host) {
  /** @type {Map<string, { root: HTMLElement, text: HTMLElement, buttons: string }>} */
  const shown = new Map();
  /** @type {Set<string>} what the reader has put away: it comes back when it says something else */
  const closed = new Set();
  return (all) => {
    const notices = all.filter((notice) => !closed.has(notice.key + notice.text));
    const keys = new Set(notices.map(({ key }) => key));
    for (const [key, { root }] of shown) {
      if (keys.has(key)) continue;
      root.remove();
      shown.delete(key);
    }
    notices.forEach((notice, at) => {
      const labels = (notice.presses ?? []).map(([label]) => label).join("|");
      const old = shown.get(notice.key);
      const entry = old !== undefined && old.buttons === labels ? old : build(notice, labels, (text) => closed.add(notice.key + text));
      if (old !== undefined && old !== entry) old.root.remove();
      shown.set(notice.key, entry);
      if (entry.text.textContent !== notice.text) entry.text.textContent = notice.text;
      if (host.children[at] !== entry.root) host.insertBefore(entry.root, host.children[at] ?? null);
    });
  };
}

/** @param {Notice} notice @param {string} labels @param {(text: string) => void} close */
function build({ tone, text, code, presses = [], isClosable }, labels, close) {
  const words = h("p", {}, text);
  const root = h("div", { class: "moe-live-notice", "data-tone": tone, role: tone === "care" ? "alert" : "note" }, words);
  for (const [label, press] of presses) {
    const element = button(label);
    element.addEventListener("click", press);
    root.append(element);
  }
  if (isClosable) {
    const cross = button("×", { class: "moe-button moe-live-close", "aria-label": "Put this notice away" });
    cross.addEventListener("click", () => {
      close(words.textContent ?? "");
      root.remove();
    });
    root.append(cross);
  }
  if (code) root.append(h("pre", { tabindex: 0, role: "region", "aria-label": "Message of the run" }, code));
  return { root, text: words, buttons: labels };
}
