// @ts-check
/** Causal effects beside their controls: reading, sentences, and the picture. */
import { drawAxes, position } from "./_axes.js";
import { grouped, number, percent, plural, ticks } from "./_number.js";

/**
 * @typedef {{
 *   layer: number, expert: number, step: number, load: number, loss: number, base: number, change: number,
 *   mean: number, low: number, high: number, controls: { layer: number, expert: number, change: number }[],
 * }} Effect mean, low, high: of the controls, with the 95 % interval of the mean
 */

export const ROW = 46;
const [LEFT, TOP, BOTTOM] = [136, 8, 42];

/** @param {import("./_payload.js").Payload} payload @returns {Effect[]} the newest first */
export function readEffects({ arrays }) {
  const widest = arrays.controls.shape[1];
  const effects = Array.from({ length: arrays.change.shape[0] }, (_, i) => {
    const [mean, low, high] = arrays.interval.data.subarray(i * 3, i * 3 + 3);
    const controls = Array.from({ length: widest }, (__, j) => i * widest + j)
      .filter((at) => Number.isFinite(arrays.controls.data[at]))
      .map((at) => ({ layer: arrays.control_layers.data[at], expert: arrays.control_experts.data[at], change: arrays.controls.data[at] }));
    return {
      layer: arrays.layer.data[i], expert: arrays.expert.data[i], step: arrays.step.data[i], load: arrays.load.data[i],
      loss: arrays.loss.data[i], base: arrays.base_loss.data[i], change: arrays.change.data[i], mean, low, high, controls,
    };
  });
  return effects.reverse();
}

/** @param {number} value @returns {string} with its sign */
export function signed(value) {
  if (!Number.isFinite(value)) return "no data";
  return `${value < 0 ? "−" : "+"}${number(Math.abs(value), 3)}`;
}

/** @param {Effect} effect @param {string} unit @returns {string} */
export function effectWords({ layer, expert, step, load, change, mean, low, high, controls }, unit) {
  const who = `expert ${expert} of layer ${layer}`;
  if (!Number.isFinite(change)) return `The effect of ${who} is not a number.`;
  const verb = change > 0 ? "rises" : "falls";
  const own = `Without ${who} (${percent(load)} of its layer's assignments) the loss on the probe text ${verb} by ${number(Math.abs(change), 3)} ${unit}, at step ${grouped(step)}.`;
  if (controls.length === 0) return `${own} There was no other expert to compare it with.`;
  const interval = Number.isFinite(low) ? ` (95 % interval of that mean ${signed(low)} to ${signed(high)})` : "";
  const above = controls.filter((control) => control.change < change).length;
  const rank = above === controls.length ? "It matters more than all of them." : above === 0 ? "It matters less than all of them." : `It matters more than ${above} of the ${controls.length}.`;
  return `${own} Banning one of ${plural(controls.length, "random expert")} of similar load changes it by ${signed(mean)} on average${interval}. ${rank}`;
}

/** @param {number} count @returns {number} */
export function effectsHeight(count) {
  return TOP + ROW * Math.max(1, count) + BOTTOM;
}

/** @param {number} y @param {number} count @returns {number} the row at a place */
export function effectAt(y, count) {
  return Math.max(0, Math.min(count - 1, Math.floor((y - TOP) / ROW)));
}

/**
 * One line per effect: the expert as a dot, its controls as rings, their mean with its interval.
 * @param {CanvasRenderingContext2D} context @param {number} width @param {Effect[]} effects @param {number} cursor @param {string} unit
 * @param {(name: string) => string} colour
 */
export function drawEffects(context, width, effects, cursor, unit, colour) {
  const left = width < 480 ? 84 : LEFT;
  const area = { left, top: TOP, width: Math.max(10, width - left - 16), height: ROW * effects.length };
  const x = rangeOfEffects(effects);
  drawAxes(context, area, { range: { low: 0, high: 1, isLog: false }, ticks: [] }, { range: x, ticks: [], title: "" }, colour);
  const at = (/** @type {number} */ value) => area.left + area.width * position(x, value);
  drawTicks(context, area, x, unit, colour);
  effects.forEach((effect, i) => {
    const middle = TOP + ROW * (i + 0.5);
    if (i === cursor) {
      context.fillStyle = colour("panel");
      context.fillRect(0, middle - ROW / 2 + 1, width, ROW - 2);
    }
    drawControls(context, effect, at, middle, colour);
    context.fillStyle = colour("event");
    context.beginPath();
    context.arc(at(effect.change), middle - 6, 6, 0, 2 * Math.PI);
    context.fill();
    context.font = `${i === cursor ? "600 " : ""}12.5px ${colour("font")}`;
    context.fillStyle = colour("text");
    context.textAlign = "right";
    context.textBaseline = "middle";
    context.fillText(left < LEFT ? `L${effect.layer}, e${effect.expert}` : `layer ${effect.layer}, expert ${effect.expert}`, area.left - 10, middle - 6);
    context.font = `11.5px ${colour("font")}`;
    context.fillStyle = colour("muted");
    context.fillText(`step ${grouped(effect.step)}`, area.left - 10, middle + 9);
  });
}

/** @param {Effect[]} effects @returns {import("./_axes.js").Range} all that is drawn, and zero */
function rangeOfEffects(effects) {
  const values = effects.flatMap(({ change, low, high, controls }) => [change, low, high, ...controls.map((control) => control.change)]).filter(Number.isFinite);
  const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
  const air = (high - low) * 0.06 || 0.5;
  return { low: low - air, high: high + air, isLog: false };
}

/** @param {CanvasRenderingContext2D} context @param {import("./_axes.js").Area} area @param {import("./_axes.js").Range} x @param {string} unit @param {(name: string) => string} colour */
function drawTicks(context, area, x, unit, colour) {
  context.font = `12px ${colour("font")}`;
  context.textBaseline = "top";
  context.textAlign = "center";
  for (const tick of ticks(x.low, x.high, Math.max(3, Math.floor(area.width / 75)))) {
    const at = Math.round(area.left + area.width * position(x, tick));
    context.fillStyle = colour(tick === 0 ? "text" : "grid");
    context.fillRect(at, area.top, 1, area.height);
    context.fillStyle = colour("muted");
    context.fillText(tick === 0 ? "0" : `${tick < 0 ? "−" : "+"}${Number(Math.abs(tick).toPrecision(3))}`, at, area.top + area.height + 6);
  }
  const caption = area.width < 380 ? `change of the loss [${unit}]` : `change of the loss when it is banned [${unit}]`;
  context.fillText(caption, area.left + area.width / 2, area.top + area.height + 23);
}

/** @param {CanvasRenderingContext2D} context @param {Effect} effect @param {(value: number) => number} at @param {number} middle @param {(name: string) => string} colour */
function drawControls(context, { controls, mean, low, high }, at, middle, colour) {
  context.lineWidth = 1.5;
  context.strokeStyle = colour("muted");
  for (const { change } of controls) {
    context.beginPath();
    context.arc(at(change), middle + 9, 3.5, 0, 2 * Math.PI);
    context.stroke();
  }
  if (!Number.isFinite(mean)) return;
  context.fillStyle = colour("mark");
  if (Number.isFinite(low)) context.fillRect(at(low), middle + 6.5, Math.max(1, at(high) - at(low)), 5);
  context.fillRect(at(mean) - 1.5, middle + 1, 3, 16);
}
