// @ts-check
/** Lines per domain: hue, marker and dash together, so that no two domains differ by colour alone. */
import { drawLine, position } from "./_axes.js";
import { h } from "./_dom.js";
import { grouped, number } from "./_number.js";
import { hues } from "./_palette.js";

/** @typedef {{ colour: (name: string) => string, isDark: () => boolean }} Look */

const ORDER = [0, 5, 2, 3, 1, 4, 7, 6];

/** @param {number} domain @param {Look} look */
function hueOf(domain, look) {
  return hues(look.isDark())[ORDER[domain % 8]];
}

/** @param {CanvasRenderingContext2D} context @param {number} kind @param {number} x @param {number} y */
function marker(context, kind, x, y) {
  const size = 4;
  context.beginPath();
  if (kind % 4 === 0) context.arc(x, y, size, 0, 2 * Math.PI);
  else if (kind % 4 === 1) context.rect(x - size + 0.5, y - size + 0.5, 2 * size - 1, 2 * size - 1);
  else {
    const corners = kind % 4 === 2 ? [[0, -1.2], [1.15, 0.9], [-1.15, 0.9]] : [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]];
    corners.forEach(([dx, dy], i) => (i === 0 ? context.moveTo(x + dx * size, y + dy * size) : context.lineTo(x + dx * size, y + dy * size)));
    context.closePath();
  }
  context.fill();
  context.stroke();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {import("./_axes.js").Area} area
 * @param {{ x: import("./_axes.js").Range, y: import("./_axes.js").Range }} ranges
 * @param {ArrayLike<number>} steps
 * @param {(row: number) => number} value
 * @param {{ domain: number, isFaded: boolean, lineWidth?: number }} style
 * @param {Look} look
 */
export function drawDomain(context, area, ranges, steps, value, { domain, isFaded, lineWidth = 1 }, look) {
  const hue = isFaded ? look.colour("empty") : hueOf(domain, look);
  context.strokeStyle = context.fillStyle = hue;
  context.lineWidth = isFaded ? lineWidth : 2;
  context.setLineDash(domain >= 8 ? [6, 4] : domain >= 4 ? [10, 3] : []);
  drawLine(context, area, ranges, steps, value);
  context.setLineDash([]);
  if (isFaded) return;
  context.strokeStyle = look.colour("surface");
  context.lineWidth = 1.25;
  const sparse = Math.max(1, Math.ceil((steps.length * 14) / area.width));
  for (let i = steps.length - 1; i >= 0; i -= sparse) {
    const x = area.left + area.width * position(ranges.x, steps[i]);
    const y = area.top + area.height * (1 - position(ranges.y, value(i)));
    if (Number.isFinite(y)) marker(context, domain, x, y);
  }
}

/** @param {number} domain @param {Look} look @returns {HTMLCanvasElement} */
function swatch(domain, look) {
  const canvas = h("canvas", { width: 68, height: 28, style: "width:34px;height:14px;flex:none", "aria-hidden": "true" });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.scale(2, 2);
  const area = { left: 0, top: 0, width: 34, height: 14 };
  const unit = { low: 0, high: 2, isLog: false };
  drawDomain(context, area, { x: unit, y: unit }, [0, 1, 2], () => 1, { domain, isFaded: true, lineWidth: 2 }, { ...look, colour: () => hueOf(domain, look) });
  context.fillStyle = hueOf(domain, look);
  context.strokeStyle = look.colour("surface");
  marker(context, domain, 17, 7);
  return canvas;
}

/**
 * A legend that is also the readout: the value of each domain at the cursor, the hardest first.
 * @param {HTMLElement} host
 * @param {Look} look
 * @param {(domain: number) => void} onHighlight -1 for none
 * @returns {(data: { domains: string[], evalSteps: Int32Array, evalLoss: ArrayLike<number> }, row: number) => void}
 */
export function createLegend(host, look, onHighlight) {
  let pinned = -1;
  let built = "";
  /** @type {Map<number, HTMLElement>} */
  const values = new Map();
  const title = h("p", { class: "moe-legend-title" });
  const list = h("div", { class: "moe-legend", role: "group", "aria-label": "Domains: press one to single it out" });
  host.append(title, list);
  const build = (/** @type {string[]} */ domains, /** @type {number[]} */ order) => {
    values.clear();
    list.replaceChildren(
      ...order.map((domain) => {
        const value = h("span", { class: "moe-legend-value" });
        values.set(domain, value);
        const row = h("button", { type: "button", class: "moe-legend-row", "aria-pressed": String(pinned === domain) });
        row.append(swatch(domain, look), h("span", { class: "moe-legend-name", title: domains[domain] }, domains[domain]), value);
        row.addEventListener("click", () => {
          pinned = pinned === domain ? -1 : domain;
          for (const other of list.children) other.setAttribute("aria-pressed", String(other === row && pinned >= 0));
          onHighlight(pinned);
        });
        row.addEventListener("pointerenter", () => onHighlight(domain));
        row.addEventListener("pointerleave", () => onHighlight(pinned));
        return row;
      }),
    );
  };
  return ({ domains, evalSteps, evalLoss }, row) => {
    const at = (/** @type {number} */ domain, /** @type {number} */ r) => evalLoss[r * domains.length + domain];
    const last = (/** @type {number} */ domain) => {
      for (let r = evalSteps.length - 1; r >= 0; r -= 1) if (Number.isFinite(at(domain, r))) return at(domain, r);
      return -Infinity;
    };
    const order = domains.map((_, d) => d).sort((a, b) => last(b) - last(a));
    const key = JSON.stringify([domains, order, look.isDark()]);
    if (key !== built) build(domains, order);
    built = key;
    title.textContent = row >= 0 ? `At step ${grouped(evalSteps[row])}` : "";
    for (const [domain, value] of values) value.textContent = number(at(domain, row), 3);
  };
}
