// @ts-check
/** A canvas that is sharp on every screen, as wide as its container, and idle while nobody sees it. */
import { h } from "./_dom.js";

/** @typedef {{ canvas: HTMLCanvasElement, schedule: () => void }} Surface */

/**
 * @param {{
 *   host: HTMLElement,
 *   label: string,
 *   height: (width: number) => number,
 *   draw: (context: CanvasRenderingContext2D, width: number, height: number) => void,
 *   signal: AbortSignal,
 * }} options label: what a screen reader says before the summary; draw: in CSS pixels
 * @returns {Surface}
 */
export function createCanvas({ host, label, height, draw, signal }) {
  const canvas = h("canvas", { class: "moe-canvas", tabindex: 0, role: "img", "aria-label": label });
  host.append(canvas);
  let isVisible = true;
  let isDirty = false;
  let frame = 0;
  const paint = () => {
    frame = 0;
    isDirty = false;
    fit(canvas, host.clientWidth, height, draw);
  };
  const schedule = () => {
    isDirty = true;
    if (isVisible && frame === 0) frame = requestAnimationFrame(paint);
  };
  const size = new ResizeObserver(schedule);
  size.observe(host);
  const sight = new IntersectionObserver((entries) => {
    isVisible = entries[entries.length - 1].isIntersecting;
    if (isVisible && isDirty) schedule();
  });
  // The first picture is drawn even off screen, so that printing and page screenshots are complete.
  requestAnimationFrame(() => requestAnimationFrame(() => sight.observe(canvas)));
  window.addEventListener("beforeprint", paint, { signal });
  signal.addEventListener("abort", () => {
    size.disconnect();
    sight.disconnect();
    cancelAnimationFrame(frame);
  });
  schedule();
  return { canvas, schedule };
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {number} width
 * @param {(width: number) => number} heightOf
 * @param {(context: CanvasRenderingContext2D, width: number, height: number) => void} draw
 */
function fit(canvas, width, heightOf, draw) {
  const context = canvas.getContext("2d");
  if (context === null || width <= 0) return;
  const height = heightOf(width);
  const ratio = window.devicePixelRatio || 1;
  const [pixelWidth, pixelHeight] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== pixelWidth || canvas.height !== pixelHeight) {
    canvas.width = pixelWidth;
    canvas.height = pixelHeight;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  draw(context, width, height);
}

/**
 * Calls back with the pointer's place on the canvas in CSS pixels, and with null when it leaves.
 * @param {HTMLCanvasElement} canvas
 * @param {(place: { x: number, y: number } | null, isPress: boolean) => void} callback
 * @param {AbortSignal} signal
 */
export function onPointer(canvas, callback, signal) {
  const place = (/** @type {PointerEvent} */ event) => ({ x: event.offsetX, y: event.offsetY });
  canvas.addEventListener("pointermove", (event) => callback(place(event), event.buttons === 1), { signal });
  canvas.addEventListener("pointerdown", (event) => callback(place(event), true), { signal });
  canvas.addEventListener("pointerleave", () => callback(null, false), { signal });
}

/**
 * Text that cannot leave the picture: shortened with an ellipsis to fit.
 * @param {CanvasRenderingContext2D} context
 * @param {string} text
 * @param {number} room [px]
 * @returns {string}
 */
export function clip(context, text, room) {
  if (context.measureText(text).width <= room) return text;
  let end = text.length;
  while (end > 1 && context.measureText(text.slice(0, end) + "…").width > room) end -= 1;
  return text.slice(0, end) + "…";
}
