// @ts-check
/** How balanced the layers were over time: one line, the events, and where the reader is. */
import { drawEvents, drawLine, position, rangeOf } from "./_axes.js";
import { nearest, ticks } from "./_number.js";

export const TIMELINE_HEIGHT = 78;

/** @param {number} width @returns {import("./_axes.js").Area} */
function timelineArea(width) {
  return { left: 62, top: 28, width: Math.max(10, width - 72), height: 44 };
}

/** @param {ArrayLike<number>} steps @param {number} x [px] @param {number} width [px] @returns {number} index of the step at a place */
export function stepAt(steps, x, width) {
  const area = timelineArea(width);
  return nearest(steps, steps[0] + ((x - area.left) / area.width) * (steps[steps.length - 1] - steps[0]));
}

/**
 * @param {{ data: import("./_load.js").LoadData | null, index: number }} state
 * @param {{ colour: (name: string) => string }} frame
 * @returns {(context: CanvasRenderingContext2D, width: number) => void}
 */
export function timelinePainter(state, frame) {
  return (context, width) => {
    const { data } = state;
    if (data === null) return;
    const area = timelineArea(width);
    const values = data.balance;
    const x = { low: data.steps[0], high: Math.max(data.steps[0] + 1, data.steps[data.steps.length - 1]), isLog: false };
    const y = { low: 1, high: Math.max(1.5, rangeOf(values, false).high), isLog: false };
    context.font = `12px ${frame.colour("font")}`;
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const tick of [1, ...ticks(1, y.high, 2).filter((value) => value > 1)].slice(0, 4)) {
      const at = Math.round(area.top + area.height * (1 - position(y, tick))) + 0.5;
      context.fillStyle = frame.colour(tick === 1 ? "line" : "grid");
      context.fillRect(area.left, at, area.width, 1);
      context.fillStyle = frame.colour("muted");
      context.fillText(`${tick}×`, area.left - 7, at);
    }
    context.strokeStyle = frame.colour("mark");
    context.lineWidth = 1.5;
    drawLine(context, area, { x, y }, data.steps, (i) => values[i]);
    drawEvents(context, area, x, data.events, frame.colour);
    const now = area.left + area.width * position(x, data.steps[state.index]);
    context.fillStyle = frame.colour("text");
    context.fillRect(now - 1, area.top - 2, 2, area.height + 4);
  };
}
