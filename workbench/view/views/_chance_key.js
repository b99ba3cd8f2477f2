// @ts-check
/** The colour key of less and more than chance. */
import { diverging } from "./_palette.js";

/**
 * From a quarter of what chance gives to four times as much.
 * @param {CanvasRenderingContext2D} context @param {number} width @param {{ colour: (name: string) => string, isDark: () => boolean }} frame
 */
export function drawDifferenceKey(context, width, frame) {
  const [left, right, top, height] = [16, 22, 2, 12];
  const span = width - left - right;
  for (let x = 0; x < span; x += 1) {
    context.fillStyle = diverging((2 * x) / (span - 1) - 1, frame.isDark());
    context.fillRect(left + x, top, 1, height);
  }
  context.font = `12px ${frame.colour("font")}`;
  context.textBaseline = "top";
  context.textAlign = "center";
  context.fillStyle = frame.colour("text");
  ["≤ ¼×", "½×", "chance", "2×", "≥ 4×"].forEach((text, i) => {
    const x = left + (span * i) / 4;
    context.fillRect(Math.round(x), top + height - 1, 1, 5);
    context.fillText(text, x, top + height + 6);
  });
}
