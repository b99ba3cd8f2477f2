// @ts-check
/** What stands where the run will be: never a spinner without an end. After five seconds it says why, and what to do. */
import { button, h } from "./_dom.js";

const PATIENCE = 5000;
const WAITING = {
  cause: "Nothing has arrived yet.",
  fix: "A model that is being made ready says so within a minute. If nothing comes, look at the place where the run was started.",
};
const NOWHERE = {
  cause: "This page has no way to a run.",
  fix: "It found neither the workbench's server nor a kernel. Open it in JupyterLab, in a notebook cell, or with `workbench app`.",
};

/**
 * @param {() => void} retry
 * @param {AbortSignal} signal
 * @returns {{ root: HTMLElement, show: (connection: import("./_line.js").Connection, hasRun: boolean) => void }}
 */
export function createStart(retry, signal) {
  const began = Date.now();
  const [title, cause, fix] = [h("h3", {}, NOWHERE.cause), h("p", {}), h("p", {}, NOWHERE.fix)];
  const again = button("Try again now", { hidden: true });
  again.addEventListener("click", retry, { signal });
  const root = h("div", { class: "moe-live-start", role: "status" }, title, cause, fix, h("div", { class: "moe-live-row" }, again));
  const set = (/** @type {HTMLElement} */ node, /** @type {string} */ text) => void (node.textContent !== text && (node.textContent = text));
  return {
    root,
    show({ phase, problem }, hasRun) {
      root.hidden = hasRun && problem?.isFinal !== true;
      if (root.hidden) return;
      const isLate = Date.now() - began > PATIENCE;
      const known = problem ?? (isLate ? WAITING : null);
      set(title, known === null ? "Connecting to the run" : phase === "live" ? "Connected, and waiting for the run" : "No run to show");
      set(cause, known?.cause ?? "This takes a moment.");
      set(fix, known?.fix ?? "");
      again.hidden = known === null || phase === "live";
    },
  };
}
