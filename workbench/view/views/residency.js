// @ts-check
/** Where are the experts? On the device, in the host's memory or on disk, at any recorded moment. */
import { createCanvas } from "./_canvas.js";
import { button, h, sliderField } from "./_dom.js";
import { defineView } from "./_frame.js";
import { createMatrix } from "./_matrix.js";
import { grouped, listed, nearest, percent, plural } from "./_number.js";
import { pagesWords, slots } from "./_offload.js";
import { createPlayer } from "./_player.js";
import { hues } from "./_palette.js";

/**
 * @typedef {import("./_frame.js").Frame} Frame
 * @typedef {{ tier: Int8Array, near: number, steps: Int32Array, layers: number[], experts: number, names: string[], room: Record<string, number>, budgets: Record<string, string>, pagesEach: number | null }} TierData tier: by sample, layer and expert; -1 unknown; room: slots of a tier, where it was noted
 * @typedef {{ data: TierData | null, index: number }} State
 */

/** What stands in a cell beside its colour, and what a tier is called. @type {Record<string, { sign: string, word: string }>} */
const TIERS = {
  device: { sign: "●", word: "on the device" },
  host: { sign: "◐", word: "in the host's memory" },
  disk: { sign: "○", word: "on disk" },
};

/** The nearest tier, as a sentence calls it. */
const NEAR = ["the device", "the host's memory"];

/** @param {string} tier @param {boolean} isDark @returns {string} strong for what is near, pale for what is far */
function colourOf(tier, isDark) {
  const palette = hues(isDark);
  return { device: palette[0], host: palette[4], disk: isDark ? "#39424d" : "#dfe4e9" }[tier] ?? palette[7];
}

/** @param {import("./_payload.js").Payload} payload @returns {TierData} */
function read({ header, arrays }) {
  // Without a device the host's memory is the nearest place.
  const near = arrays.tier.data.includes(0) || "device" in header.room ? 0 : 1;
  const { tiers: names, room, budgets, pages_each: pagesEach } = header;
  return { tier: arrays.tier.data, near, steps: arrays.step.data, layers: Array.from(arrays.layer.data), experts: arrays.tier.shape[2], names, room, budgets, pagesEach };
}

/** @param {TierData} data @param {number} index @param {number} layer @param {number} expert @returns {number} */
function tierAt({ tier, layers, experts }, index, layer, expert) {
  return tier[(index * layers.length + layer) * experts + expert];
}

/** @param {TierData} data @param {number} index @param {number} [layer] all of them by default @returns {number[]} experts by tier, the unknown last */
function counts({ tier, layers, experts, names }, index, layer) {
  const from = (index * layers.length + (layer ?? 0)) * experts;
  const out = [...names.map(() => 0), 0];
  for (const place of tier.subarray(from, from + (layer === undefined ? layers.length : 1) * experts)) out[place < 0 ? names.length : place] += 1;
  return out;
}

/** @param {TierData} data @param {number} index @returns {{ came: number, left: number }} to and from the nearest tier since the sample before */
function changes(data, index) {
  const out = { came: 0, left: 0 };
  if (index === 0) return out;
  const size = data.layers.length * data.experts;
  for (let i = 0; i < size; i += 1) {
    const [before, now] = [data.tier[(index - 1) * size + i], data.tier[index * size + i]];
    if (before !== data.near && now === data.near) out.came += 1;
    if (before === data.near && now !== data.near) out.left += 1;
  }
  return out;
}

/** @param {TierData} data @param {number} index @returns {string} */
function sentence(data, index) {
  const held = counts(data, index);
  const total = held.reduce((sum, count) => sum + count, 0);
  const known = data.names.flatMap((name, i) => (held[i] > 0 ? [[held[i], TIERS[name]?.word ?? name]] : []));
  if (held[data.names.length] > 0) known.push([held[data.names.length], "nobody knows where"]);
  const parts = known.map(([count, where], i) => (i === 0 ? `${count} of ${plural(total, "expert")} are ${where}` : `${count} ${where}`));
  const { came, left } = changes(data, index);
  const moved = index === 0 ? "" : came + left === 0 ? " Nothing moved since the sample before." : ` Since the sample before ${plural(came, "expert")} came to ${NEAR[data.near]} and ${left} left it.`;
  return `At step ${grouped(data.steps[index])}, ${listed(parts)}.${moved}`;
}

/** @param {Frame} frame */
function layout(frame) {
  const scrub = sliderField("Step", {});
  scrub.field.classList.add("moe-wide");
  const play = button("▶ Play");
  frame.toolbar.append(play, scrub.field);
  const keys = h("ul", { class: "moe-keys moe-tiers" });
  const host = h("div", {});
  const title = h("p", { class: "moe-plot-title" }, "In the nearest tier over time ", h("small", {}, "[share of all experts] — click to go there"));
  const timeHost = h("div", {});
  const time = h("div", { class: "moe-timeline" }, title, timeHost);
  frame.body.append(keys, h("div", {}, host), time);
  return { scrub, play, keys, host, timeHost, time };
}

/** @param {Frame} frame @returns {import("./_frame.js").Part} */
function create(frame) {
  const ui = layout(frame);
  /** @type {State} */
  const state = { data: null, index: 0 };
  const choose = (/** @type {{ row: number, column: number }} */ { row, column }) => {
    if (state.data !== null) frame.choose({ layer: state.data.layers[row], expert: column, step: state.data.steps[state.index] });
  };
  const matrix = createMatrix({ host: ui.host, frame, choose });
  const time = createCanvas({ host: ui.timeHost, label: "Share of the experts in the nearest tier over time", signal: frame.signal, height: () => 64, draw: (context, width) => drawTime(context, width, state, frame) });
  time.canvas.removeAttribute("tabindex");
  const refresh = () => {
    if (state.data === null) return;
    show(ui, state.data, state.index, { matrix, frame });
    time.schedule();
    frame.refreshTable();
  };
  const goTo = (/** @type {number} */ index) => {
    state.index = index;
    refresh();
  };
  const player = createPlayer(ui.play, () => ({ index: state.index, count: state.data?.steps.length ?? 0 }), goTo, frame.signal);
  ui.scrub.input.addEventListener("input", () => {
    player.stop();
    goTo(Number(ui.scrub.input.value));
  }, { signal: frame.signal });
  time.canvas.addEventListener("pointerdown", (event) => {
    if (state.data === null) return;
    player.stop();
    const share = (event.offsetX - 46) / Math.max(1, time.canvas.clientWidth - 56);
    goTo(Math.max(0, Math.min(state.data.steps.length - 1, Math.round(share * (state.data.steps.length - 1)))));
  }, { signal: frame.signal });
  return {
    update(payload) {
      adopt(state, read(payload));
      refresh();
    },
    redraw: refresh,
    table: () => tableOf(/** @type {TierData} */ (state.data), state.index),
    select: ({ step, layer, expert }) => {
      if (state.data === null) return;
      if (Number.isFinite(step)) state.index = nearest(state.data.steps, step);
      const row = state.data.layers.indexOf(layer);
      refresh();
      if (row >= 0 && expert >= 0 && expert < state.data.experts) matrix.moveTo({ row, column: expert });
    },
  };
}

/** @param {State} state @param {TierData} data a reader at the newest sample stays there, any other at their step */
function adopt(state, data) {
  const before = state.data;
  const isNewest = before === null || state.index === before.steps.length - 1;
  state.index = isNewest ? data.steps.length - 1 : nearest(data.steps, before.steps[state.index]);
  state.data = data;
}

/** @param {ReturnType<typeof layout>} ui @param {TierData} data @param {number} index @param {{ matrix: import("./_matrix.js").Matrix, frame: Frame }} parts */
function show(ui, data, index, { matrix, frame }) {
  const last = data.steps.length - 1;
  ui.scrub.input.max = String(last);
  ui.scrub.input.value = String(index);
  ui.scrub.output.textContent = grouped(data.steps[index]);
  ui.scrub.input.setAttribute("aria-valuetext", `step ${data.steps[index]}`);
  ui.scrub.field.hidden = ui.play.hidden = ui.time.hidden = last === 0;
  frame.lead(sentence(data, index));
  const held = counts(data, index);
  // A tier that this machine does not have is not named; which it has is known where budgets were noted.
  const isKnown = Object.keys(data.room).length > 0;
  const keys = data.names.flatMap((name, i) => {
    if (isKnown && !(name in data.room) && name !== "disk" && held[i] === 0) return [];
    const sample = h("span", { class: "moe-tier", "aria-hidden": "true" }, TIERS[name]?.sign ?? "");
    sample.style.setProperty("--tier", colourOf(name, frame.isDark()));
    sample.style.color = inkFor(colourOf(name, frame.isDark()));
    return [h("li", {}, sample, `${TIERS[name]?.word ?? name}: ${held[i]}${roomWords(data, name)}`)];
  });
  if (data.pagesEach !== null) keys.push(h("li", {}, `${pagesWords(data.pagesEach)}, and shown where the slowest of them lies`));
  ui.keys.replaceChildren(...keys, h("li", {}, "▸ it came since the sample before"));
  const experts = Array.from({ length: data.experts }, (_, i) => String(i));
  matrix.show({
    rows: data.layers.map(String), columns: experts, rowTitle: "layer", columnTitle: "expert (each layer has its own)",
    cells: data.layers.map((_, layer) => experts.map((__, expert) => cellOf(data, index, layer, expert, frame.isDark()))),
    words: (layer, expert) => cellWords(data, index, layer, expert),
    label: sentence(data, index),
  });
}

/** @param {TierData} data @param {string} tier @returns {string} */
function roomWords({ room, budgets, pagesEach }, tier) {
  return tier in room ? ` (room for ${slots(room[tier], pagesEach)}, budget ${budgets[tier]})` : "";
}

/** @param {string} fill @returns {string} */
function inkFor(fill) {
  return parseInt(fill.slice(1, 3), 16) * 0.3 + parseInt(fill.slice(3, 5), 16) * 0.59 + parseInt(fill.slice(5), 16) * 0.11 > 110 ? "#000000" : "#ffffff";
}

/** @param {TierData} data @param {number} index @param {number} layer @param {number} expert @param {boolean} isDark @returns {import("./_matrix.js").MatrixCell} */
function cellOf(data, index, layer, expert, isDark) {
  const tier = tierAt(data, index, layer, expert);
  const name = data.names[tier];
  if (name === undefined) return { fill: null, text: "?", isOpen: true, isSign: true };
  const isNew = index > 0 && tier === data.near && tierAt(data, index - 1, layer, expert) !== data.near;
  return { fill: colourOf(name, isDark), text: `${isNew ? "▸" : ""}${TIERS[name]?.sign ?? ""}`, isSign: true };
}

/** @param {TierData} data @param {number} index @param {number} layer @param {number} expert @returns {string} */
function cellWords(data, index, layer, expert) {
  const name = data.names[tierAt(data, index, layer, expert)];
  const who = `Layer ${data.layers[layer]}, expert ${expert}`;
  if (name === undefined) return `${who}: where it is was not recorded.`;
  let since = index;
  while (since > 0 && tierAt(data, since - 1, layer, expert) === tierAt(data, index, layer, expert)) since -= 1;
  const when = since === 0 ? "from the first sample on" : `since step ${grouped(data.steps[since])}`;
  let stays = 0;
  for (let i = 0; i < data.steps.length; i += 1) stays += Number(tierAt(data, i, layer, expert) === data.near);
  return `${who}: ${TIERS[name]?.word ?? name}, ${when}. It was ${TIERS[data.names[data.near]]?.word ?? "near"} in ${percent(stays / data.steps.length)} of the samples.`;
}

/** @param {CanvasRenderingContext2D} context @param {number} width @param {State} state @param {Frame} frame */
function drawTime(context, width, { data, index }, frame) {
  if (data === null) return;
  const [left, right, top, height] = [46, 10, 6, 44];
  const span = Math.max(1, width - left - right);
  const size = data.layers.length * data.experts;
  const count = data.steps.length;
  context.fillStyle = colourOf(data.names[data.near], frame.isDark());
  for (let x = 0; x < span; x += 1) {
    const share = counts(data, Math.min(count - 1, Math.round((x / Math.max(1, span - 1)) * (count - 1))))[data.near] / size;
    context.fillRect(left + x, top + height * (1 - share), 1, height * share);
  }
  context.strokeStyle = frame.colour("line");
  context.strokeRect(left + 0.5, top + 0.5, span - 1, height - 1);
  context.font = `12px ${frame.colour("font")}`;
  context.fillStyle = frame.colour("muted");
  context.textAlign = "right";
  context.textBaseline = "middle";
  context.fillText("100 %", left - 6, top + 5);
  context.fillText("0", left - 6, top + height - 4);
  context.fillStyle = frame.colour("event");
  context.fillRect(left + (span * index) / Math.max(1, count - 1) - 1, top - 4, 2, height + 8);
}

/** @param {TierData} data @param {number} index @returns {import("./_frame.js").Table} */
function tableOf(data, index) {
  const rows = data.layers.map((layer, i) => {
    const held = counts(data, index, i);
    const where = Array.from({ length: data.experts }, (_, expert) => data.names[tierAt(data, index, i, expert)] ?? "unknown");
    return [`layer ${layer}`, ...held.slice(0, data.names.length), ...where];
  });
  const caption = `At step ${grouped(data.steps[index])}: experts of each layer by place, then the place of each expert.`;
  return { caption, head: ["Layer", ...data.names, ...Array.from({ length: data.experts }, (_, e) => `expert ${e}`)], rows };
}

const STYLE = `
.moe-tiers { margin: 0 0 10px; color: var(--moe-text); }
.moe-tier { display: inline-block; width: 24px; height: 20px; background: var(--tier); text-align: center; line-height: 20px; font-size: 12px; border: 1px solid var(--moe-line); }
.moe-residency .moe-timeline { margin-top: 16px; }
`;

export default defineView({ name: "residency", title: "Where are the experts?", style: STYLE, create });
