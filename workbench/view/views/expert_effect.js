// @ts-check
/** What is an expert good for? Pin it, ban it or boost it, and measure what the text loses without it. */
import { createAck } from "./_ack.js";
import { createCanvas, onPointer } from "./_canvas.js";
import { button, h, selectField, setOptions, sliderField } from "./_dom.js";
import { drawEffects, effectAt, effectWords, effectsHeight, readEffects, signed } from "./_effects.js";
import { defineView } from "./_frame.js";
import { number } from "./_number.js";
import { copyButton, pythonLine } from "./_python.js";

/**
 * @typedef {import("./_frame.js").Frame} Frame
 * @typedef {import("./_effects.js").Effect} Effect
 * @typedef {{ layer: number, expert: number, kind: "pin" | "ban" | "bias", bias: number | null }} Steer
 * @typedef {{ effects: Effect[] | null, unit: string, cursor: number, layer: number, expert: number }} State
 */

const SHOWN = 10;

/** @param {Frame} frame */
function layout(frame) {
  const layer = selectField("Layer", []);
  const expert = selectField("Expert", []);
  const pin = button("Pin", { title: "Every token goes to it." });
  const ban = button("Ban", { title: "No token goes to it." });
  const bias = sliderField("Bias", { min: -10, max: 10, step: 0.5, value: 0 });
  const apply = button("Apply bias", { title: "Added to its score before experts are chosen; its weight stays the router's." });
  const measure = button("Measure its effect", { class: "moe-button moe-primary", title: "Ban it on the probe text, and eight random experts of similar load beside it. Nothing of the run changes." });
  const choice = h("div", { class: "moe-row" }, layer.field, expert.field, measure);
  const acts = h("div", { class: "moe-row" }, pin, ban, bias.field, apply);
  const why = h("p", { class: "moe-quiet", hidden: true });
  const steered = h("ul", { class: "moe-steered", "aria-label": "Steered now" });
  const steeredTitle = h("p", { class: "moe-plot-title" });
  const form = h("div", { class: "moe-steer", hidden: true }, choice, acts, why, steeredTitle, steered);
  const hint = h("p", { class: "moe-quiet" }, "Nothing has been measured. A run that is live can steer its experts here, and measure them.");
  const title = h("p", { class: "moe-plot-title" }, "Measured effects ", h("small", {}, "[the newest on top]"));
  const host = h("div", {});
  const readout = h("p", { class: "moe-readout" });
  const keys = h("ul", { class: "moe-keys" }, ...["● the expert", "○ its controls: random experts of similar load", "┃ mean of the controls, ▬ 95 % interval of that mean"].map((text) => h("li", {}, text)));
  const result = h("div", { hidden: true }, title, host, keys, readout);
  frame.body.append(form, hint, result);
  return { layer, expert, pin, ban, bias, apply, measure, acts, why, steered, steeredTitle, form, hint, host, readout, result };
}

/** @param {Frame} frame @returns {import("./_frame.js").Part} */
function create(frame) {
  const ui = layout(frame);
  /** @type {State} */
  const state = { effects: null, unit: "", cursor: -1, layer: 0, expert: 0 };
  const ack = createAck(frame);
  ui.acts.after(ack.element);
  const copy = copyButton(() => {
    const last = ack.last() ?? { op: "measure_expert", args: place(state) };
    return pythonLine(last.op, last.args);
  }, frame.signal);
  ui.acts.append(copy.element);
  const shown = () => (state.effects ?? []).slice(0, SHOWN);
  const surface = createCanvas({
    host: ui.host, label: "", signal: frame.signal, height: () => effectsHeight(shown().length),
    draw: (context, width) => drawEffects(context, width, shown(), state.cursor, state.unit, frame.colour),
  });
  const moveTo = (/** @type {number} */ row) => {
    state.cursor = row;
    const effect = shown()[row];
    ui.readout.textContent = effect === undefined ? "Point at a line, or move with the arrow keys, to read it." : effectWords(effect, state.unit);
    surface.schedule();
  };
  const choose = () => {
    const effect = shown()[state.cursor];
    if (effect !== undefined) frame.choose({ layer: effect.layer, expert: effect.expert, step: effect.step });
  };
  onPointer(surface.canvas, (at, isPress) => {
    if (at === null || shown().length === 0) return;
    moveTo(effectAt(at.y, shown().length));
    if (isPress) choose();
  }, frame.signal);
  surface.canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowUp: state.cursor - 1, ArrowDown: state.cursor + 1, Home: 0, End: shown().length - 1, Escape: -1 };
    if (event.key === "Enter") choose();
    if (!(event.key in moves)) return;
    event.preventDefault();
    moveTo(event.key === "Escape" ? -1 : Math.max(0, Math.min(shown().length - 1, moves[/** @type {keyof typeof moves} */ (event.key)])));
    frame.say(ui.readout.textContent ?? "");
  }, { signal: frame.signal });
  wire(ui, state, frame, ack);
  const sync = () => syncRun(ui, state, frame);
  return {
    update(payload) {
      state.effects = readEffects(payload);
      state.unit = payload.header.unit;
      const hasAny = state.effects.length > 0;
      ui.result.hidden = !hasAny;
      ui.hint.hidden = hasAny || frame.isLive();
      const text = hasAny ? effectWords(state.effects[0], state.unit) : "";
      frame.lead(text);
      surface.canvas.setAttribute("aria-label", `Measured effects of banning experts. ${text} Up and down move between them.`);
      moveTo(-1);
    },
    redraw: surface.schedule,
    table: () => tableOf(state),
    select: ({ layer, expert }) => {
      if (Number.isFinite(layer)) state.layer = layer;
      if (Number.isFinite(expert)) state.expert = expert;
      sync();
    },
    run: sync,
    acks: ack.hear,
  };
}

/** @param {{ layer: number, expert: number }} chosen */
function place({ layer, expert }) {
  return { layer, expert };
}

/** @param {ReturnType<typeof layout>} ui @param {State} state @param {Frame} frame @param {import("./_ack.js").Ack} ack */
function wire(ui, state, frame, ack) {
  const { signal } = frame;
  const who = () => `expert ${state.expert} of layer ${state.layer}`;
  const press = (/** @type {HTMLElement} */ element, /** @type {() => void} */ act) => element.addEventListener("click", act, { signal });
  press(ui.pin, () => ack.send("pin_expert", place(state), `pin ${who()}`));
  press(ui.ban, () => ack.send("ban_expert", place(state), `ban ${who()}`));
  press(ui.measure, () => ack.send("measure_expert", place(state), `measure ${who()}`));
  press(ui.apply, () => {
    const bias = Number(ui.bias.input.value);
    ack.send("bias_expert", { ...place(state), bias }, bias === 0 ? `leave ${who()} to the router` : `bias ${who()} by ${signed(bias)}`);
  });
  const tell = () => {
    const bias = Number(ui.bias.input.value);
    ui.bias.output.textContent = bias === 0 ? "0" : `${bias < 0 ? "−" : "+"}${Math.abs(bias).toFixed(1)}`;
  };
  ui.bias.input.addEventListener("input", tell, { signal });
  tell();
  ui.layer.select.addEventListener("change", () => (state.layer = Number(ui.layer.select.value)), { signal });
  ui.expert.select.addEventListener("change", () => (state.expert = Number(ui.expert.select.value)), { signal });
  ui.steered.addEventListener("click", (event) => {
    const pressed = event.target instanceof Element ? event.target.closest("button") : null;
    if (pressed === null) return;
    const [layer, expert] = [Number(pressed.dataset.layer), Number(pressed.dataset.expert)];
    ack.send("bias_expert", { layer, expert, bias: 0 }, `leave expert ${expert} of layer ${layer} to the router`);
  }, { signal });
}

/** @param {ReturnType<typeof layout>} ui @param {State} state @param {Frame} frame what the run can do, and what is steered in it */
function syncRun(ui, state, frame) {
  const run = frame.run() ?? {};
  const isLive = frame.isLive();
  ui.form.hidden = !isLive;
  ui.hint.hidden = isLive || (state.effects ?? []).length > 0;
  if (!isLive) return;
  const names = (/** @type {number} */ count, /** @type {string} */ noun) =>
    /** @type {[string, string][]} */ (Array.from({ length: Math.max(1, count || 0) }, (_, i) => [String(i), `${noun} ${i}`]));
  setOptions(ui.layer.select, names(run.num_layers, "layer"));
  setOptions(ui.expert.select, names(run.num_experts, "expert"));
  state.layer = Math.min(state.layer, Math.max(1, run.num_layers || 1) - 1);
  state.expert = Math.min(state.expert, Math.max(1, run.num_experts || 1) - 1);
  ui.layer.select.value = String(state.layer);
  ui.expert.select.value = String(state.expert);
  const isSteerable = run.is_steerable !== false;
  for (const act of [ui.pin, ui.ban, ui.apply, ui.measure]) act.disabled = !isSteerable;
  ui.why.hidden = isSteerable;
  ui.why.textContent = `The router ${run.router} does not let anybody steer its choice. Swap to top_k, for instance.`;
  showSteered(ui, run.steering ?? []);
}

/** @param {ReturnType<typeof layout>} ui @param {Steer[]} steering */
function showSteered(ui, steering) {
  const key = JSON.stringify(steering);
  if (ui.steered.dataset.shown === key) return;
  ui.steered.dataset.shown = key;
  const words = (/** @type {Steer} */ { kind, bias }) => ({ pin: "pinned: every token goes to it", ban: "banned: no token goes to it", bias: `bias ${signed(bias ?? NaN)} on its score` })[kind] ?? kind;
  ui.steeredTitle.textContent = steering.length > 0 ? "Steered now" : "Nothing is steered: the router decides alone.";
  ui.steered.replaceChildren(...steering.map((steer) => {
    const back = button("Take back", { "data-layer": String(steer.layer), "data-expert": String(steer.expert), "aria-label": `Take back: expert ${steer.expert} of layer ${steer.layer}` });
    return h("li", {}, back, h("span", {}, h("b", {}, `expert ${steer.expert} of layer ${steer.layer}`), ` ${words(steer)}`));
  }));
}

/** @param {State} state @returns {import("./_frame.js").Table} */
function tableOf({ effects, unit }) {
  const rows = (effects ?? []).map(({ layer, expert, step, load, loss, base, change, mean, low, high, controls }) => [
    `layer ${layer}, expert ${expert}`, step, (load * 100).toFixed(2), number(base, 5), number(loss, 5), signed(change), signed(mean),
    Number.isFinite(low) ? `${signed(low)} to ${signed(high)}` : "no data",
    controls.map((control) => `${signed(control.change)} (layer ${control.layer}, expert ${control.expert})`).join("; ") || "none",
  ]);
  return {
    caption: `Loss on the probe text with one expert banned, in ${unit}; the newest first.`,
    head: ["Banned", "Step", "Load [%]", "Loss with it", "Loss without", "Change", "Mean of controls", "95 % interval", "Controls"], rows,
  };
}

const STYLE = `
.moe-steer { display: grid; gap: 10px; margin: 14px 0 18px; padding-bottom: 16px; border-bottom: 1px solid var(--moe-grid); }
.moe-row { display: flex; flex-wrap: wrap; gap: 8px 14px; align-items: center; }
.moe-primary { border-color: var(--moe-accent); font-weight: 600; }
.moe-quiet { margin: 10px 0 0; font-size: 13.5px; color: var(--moe-muted); }
.moe-steered { display: grid; gap: 6px; margin: 0; padding: 0; list-style: none; font-size: 13.5px; }
.moe-steered li { display: flex; flex-wrap: wrap; gap: 4px 12px; align-items: center; }
`;

export default defineView({ name: "expert_effect", title: "What is an expert good for?", hasControls: true, style: STYLE, create });
