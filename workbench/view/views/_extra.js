// @ts-check
/** The controls behind "More": options of a swap, shadow router, checkpoints, notes, and how often the page is fed. */
import { button, h, setOptions } from "./_dom.js";
import { createOffloadControls } from "./_offload_controls.js";
import { allow, askOnce, iconButton } from "./_press.js";
import { parseArguments } from "./_words.js";

const RATES = [1, 2, 5, 10, 20];
const COUNTS = [1, 10, 100];

/** @typedef {(op: string, args?: Record<string, any>) => void} Act */

/** @param {string} legend @param {string} about @param {...(Node | string)} row */
function group(legend, about, ...row) {
  return h("fieldset", {}, h("legend", {}, legend), h("p", {}, about), h("div", { class: "moe-live-row" }, ...row));
}

/** @param {string} text @param {boolean} isOn */
function tick(text, isOn) {
  const box = h("input", { type: "checkbox", checked: isOn });
  return { box, label: h("label", { class: "moe-live-tick" }, box, text) };
}

function layout() {
  const args = h("input", { class: "moe-live-input", placeholder: "name=value, name=value", "aria-label": "Arguments of the router", maxlength: 400 });
  const setArgs = button("Set on this router");
  const carry = tick("Carry over the weights that fit", true);
  const rebuild = tick("Build the experts anew", false);
  const shadow = h("select", { class: "moe-select", "aria-label": "Shadow router" });
  const setShadow = button("Set");
  const checkpoint = iconButton("flag", "Checkpoint");
  const rewind = iconButton("rewind", "Rewind");
  const reset = iconButton("undo", "Reset");
  const note = h("input", { class: "moe-live-input", placeholder: "What did you just see?", "aria-label": "Note", maxlength: 500 });
  const addNote = iconButton("note", "Add");
  const rate = h("select", { class: "moe-select", "aria-label": "Updates a second" });
  const count = h("select", { class: "moe-select", "aria-label": "Steps for one press of Step" });
  const problem = h("p", { class: "moe-live-life", role: "alert", "data-status": "refused" });
  return { args, setArgs, carry, rebuild, shadow, setShadow, checkpoint, rewind, reset, note, addNote, rate, count, problem };
}

/** @param {ReturnType<typeof layout>} ui @param {string} id */
function arrange(ui, id) {
  const swap = group("How to swap", "Arguments go with Swap, or change the router that runs.", ui.args, ui.setArgs);
  swap.append(h("div", { class: "moe-live-row" }, ui.carry.label, ui.rebuild.label), ui.problem);
  const root = h("div", { class: "moe-live-extra", id, hidden: true, role: "group", "aria-label": "More controls" });
  root.append(
    swap,
    group("Shadow router", "A second router that sees the same tokens and changes nothing.", ui.shadow, ui.setShadow),
    group("Checkpoints", "Rewind goes back to the newest checkpoint, exactly.", ui.checkpoint.element, ui.rewind.element, ui.reset.element),
    group("Note", "A mark on the time axis, kept with the run.", ui.note, ui.addNote.element),
    group("Pace", "Updates a second for everybody who watches, and steps for one press.", ui.rate, ui.count),
  );
  return root;
}

/** @param {{ act: Act, signal: AbortSignal, id: string }} options */
export function createExtra({ act, signal, id }) {
  const ui = layout();
  const root = arrange(ui, id);
  const offload = createOffloadControls({ act, signal });
  root.append(offload.root);
  setOptions(ui.rate, RATES.map((rate) => [String(rate), rate === 1 ? "1 update a second" : `${rate} updates a second`]));
  setOptions(ui.count, COUNTS.map((count) => [String(count), count === 1 ? "1 step a press" : `${count} steps a press`]));
  wire(ui, act, signal);
  return {
    root,
    stepCount: () => Number(ui.count.value),
    argumentsText: () => ui.args.value,
    swapOptions: () => ({ carry: ui.carry.box.checked, rebuild_experts: ui.rebuild.box.checked }),
    /** @param {any} state */
    show(state) {
      const names = (state.choices?.router ?? []).map((/** @type {any} */ { name }) => name);
      const isBusy = root.contains(document.activeElement);
      setOptions(ui.shadow, [["", "no shadow"], ...names.map((/** @type {string} */ name) => /** @type {[string, string]} */ ([name, name]))]);
      if (!isBusy) ui.shadow.value = state.shadow ?? "";
      if (!isBusy && RATES.includes(state.frames_per_second)) ui.rate.value = String(state.frames_per_second);
      offload.show(state);
      allow(ui.rewind.element, state.can_rewind === true);
      ui.rewind.element.title = state.can_rewind ? "Back to the newest checkpoint" : "There is no checkpoint yet";
    },
  };
}

/** @param {ReturnType<typeof layout>} ui @param {Act} act @param {AbortSignal} signal */
function wire(ui, act, signal) {
  const on = (/** @type {HTMLElement} */ element, /** @type {string} */ type, /** @type {(event: any) => void} */ listener) => element.addEventListener(type, listener, { signal });
  on(ui.setArgs, "click", () => {
    try {
      ui.problem.textContent = "";
      act("set_router_args", { args: parseArguments(ui.args.value) });
    } catch (error) {
      ui.problem.textContent = error instanceof Error ? error.message : String(error);
    }
  });
  on(ui.setShadow, "click", () => act("set_shadow", { name: ui.shadow.value === "" ? null : ui.shadow.value }));
  on(ui.checkpoint.element, "click", () => act("checkpoint"));
  askOnce(ui.rewind, "Press again to rewind", () => act("rewind"), signal);
  askOnce(ui.reset, "Press again to begin anew", () => act("reset"), signal);
  on(ui.rate, "change", () => act("set_rate", { frames_per_second: Number(ui.rate.value) }));
  const add = () => {
    const text = ui.note.value.trim();
    if (text === "") return ui.note.focus();
    act("annotate", { text });
    ui.note.value = "";
  };
  on(ui.addNote.element, "click", add);
  on(ui.note, "keydown", (event) => void (event.key === "Enter" && add()));
}
