// @ts-check
/** Axes, lines and event flags of a chart over training steps. */
import { clip } from "./_canvas.js";
import { grouped, tickText } from "./_number.js";

/**
 * @typedef {{ left: number, top: number, width: number, height: number }} Area
 * @typedef {{ low: number, high: number, isLog: boolean }} Range
 * @typedef {{ step: number, label: string, short: string, detail: string }} Flag
 */

/** @param {Range} range @param {number} value @returns {number} 0..1, NaN where the value has no place */
export function position({ low, high, isLog }, value) {
  if (!isLog) return (value - low) / (high - low);
  return value > 0 ? Math.log(value / low) / Math.log(high / low) : NaN;
}

/**
 * The range of the finite values, with a little air; never empty.
 * @param {Iterable<number>} values @param {boolean} isLog
 * @returns {Range}
 */
export function rangeOf(values, isLog) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (!Number.isFinite(value) || (isLog && value <= 0)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return { low: isLog ? 0.1 : 0, high: 1, isLog };
  if (low === high) return isLog ? { low: low / 1.5, high: high * 1.5, isLog } : { low: low - 0.5, high: high + 0.5, isLog };
  const air = (high - low) * 0.05;
  return isLog ? { low: low / 1.03, high: high * 1.03, isLog } : { low: low - air, high: high + air, isLog };
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Area} area
 * @param {{ range: Range, ticks: number[] }} y
 * @param {{ range: Range, ticks: number[], title: string }} x
 * @param {(name: string) => string} colour
 */
export function drawAxes(context, area, y, x, colour) {
  context.font = `12px ${colour("font")}`;
  context.lineWidth = 1;
  context.textBaseline = "middle";
  context.textAlign = "right";
  for (const tick of y.ticks) {
    const at = Math.round(area.top + area.height * (1 - position(y.range, tick))) + 0.5;
    context.strokeStyle = colour("grid");
    stroke(context, [area.left, at], [area.left + area.width, at]);
    context.fillStyle = colour("muted");
    context.fillText(tickText(tick), area.left - 8, at);
  }
  const bottom = Math.round(area.top + area.height) + 0.5;
  context.strokeStyle = colour("line");
  stroke(context, [area.left, bottom], [area.left + area.width, bottom]);
  context.textBaseline = "top";
  context.fillStyle = colour("muted");
  for (const tick of x.ticks) {
    const at = area.left + area.width * position(x.range, tick);
    stroke(context, [at, bottom], [at, bottom + 4]);
    const text = grouped(tick);
    const half = context.measureText(text).width / 2;
    context.textAlign = "center";
    context.fillText(text, Math.min(at, area.left + area.width - half + 6), bottom + 7);
  }
  if (x.title) context.fillText(x.title, area.left + area.width / 2, bottom + 24);
}

/** @param {CanvasRenderingContext2D} context @param {[number, number]} from @param {[number, number]} to */
function stroke(context, [x0, y0], [x1, y1]) {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}

/**
 * A line through the finite points; a NaN leaves a gap. Where many points share a column of pixels, the column gets the
 * first, the lowest, the highest and the last of them: the same picture, drawn at once.
 * @param {CanvasRenderingContext2D} context
 * @param {Area} area
 * @param {{ x: Range, y: Range }} ranges
 * @param {ArrayLike<number>} steps ascending
 * @param {(index: number) => number} value
 */
export function drawLine(context, area, ranges, steps, value) {
  const isDense = steps.length > 4 * area.width;
  const across = area.width / (ranges.x.high - ranges.x.low);
  let isDown = false;
  let [column, low, high, last] = [-1, 0, 0, 0];
  const point = (/** @type {number} */ x, /** @type {number} */ y) => {
    if (isDown) context.lineTo(x, y);
    else context.moveTo(x, y);
    isDown = true;
  };
  const flush = () => {
    if (column < 0) return;
    for (const y of [low, high, last]) point(column + 0.5, y);
    column = -1;
  };
  context.beginPath();
  for (let i = 0; i < steps.length; i += 1) {
    const y = area.top + area.height * (1 - position(ranges.y, value(i)));
    const x = area.left + (steps[i] - ranges.x.low) * across;
    if (!Number.isFinite(y)) {
      flush();
      isDown = false;
    } else if (!isDense) point(x, y);
    else if (Math.floor(x) === column) {
      low = Math.min(low, y);
      high = Math.max(high, y);
      last = y;
    } else {
      flush();
      point(x, y);
      [column, low, high, last] = [Math.floor(x), y, y, y];
    }
  }
  flush();
  context.stroke();
}

/**
 * Numbered flags for control events; a few words stand beside a flag on the side where there is room.
 * @param {CanvasRenderingContext2D} context
 * @param {Area} area flags stand just above it
 * @param {Range} x
 * @param {Flag[]} events ascending
 * @param {(name: string) => string} colour
 */
export function drawEvents(context, area, x, events, colour) {
  const end = area.left + area.width;
  const places = events.map(({ step }) => area.left + area.width * position(x, step));
  events.forEach(({ short }, i) => {
    const at = places[i];
    if (!(at >= area.left - 1 && at <= end + 1)) return;
    drawFlag(context, area, at, i + 1, colour);
    const right = Math.min(...places.filter((other) => other > at), end) - at - 26;
    const left = at - Math.max(...places.slice(0, i), area.left) - 26;
    context.font = `12px ${colour("font")}`;
    context.fillStyle = colour("event");
    const needed = context.measureText(short).width;
    const isRight = needed <= right || right >= left;
    if (Math.max(left, right) < 70) return;
    context.textAlign = isRight ? "left" : "right";
    context.fillText(clip(context, short, isRight ? right : left), at + (isRight ? 13 : -13), area.top - 13.5);
  });
}

/**
 * @param {CanvasRenderingContext2D} context @param {Area} area @param {number} at @param {number} serial
 * @param {(name: string) => string} colour
 */
function drawFlag(context, area, at, serial, colour) {
  context.lineWidth = 1.25;
  context.strokeStyle = context.fillStyle = colour("event");
  context.setLineDash([4, 3]);
  stroke(context, [at, area.top - 8], [at, area.top + area.height]);
  context.setLineDash([]);
  context.beginPath();
  context.arc(at, area.top - 14, 8, 0, 2 * Math.PI);
  context.fill();
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.font = `600 11px ${colour("font")}`;
  context.fillStyle = colour("surface");
  context.fillText(String(serial), at, area.top - 13.5);
}

/**
 * @param {CanvasRenderingContext2D} context @param {Area} area @param {Range} x @param {number} step
 * @param {(name: string) => string} colour
 */
export function drawCursor(context, area, x, step, colour) {
  const at = Math.round(area.left + area.width * position(x, step)) + 0.5;
  context.strokeStyle = colour("text");
  context.lineWidth = 1;
  stroke(context, [at, area.top], [at, area.top + area.height]);
}
