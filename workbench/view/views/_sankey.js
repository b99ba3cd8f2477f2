// @ts-check
/** A flow from experts on the left to experts on the right: ribbons as wide as what flows, with a cursor for pointer and keys. */
import { createCanvas, onPointer } from "./_canvas.js";
import { h } from "./_dom.js";

/** Ribbons that are drawn, the widest; the others leave their room empty. */
export const DRAWN = 90;
const [BAR, TOP, BOTTOM] = [10, 22, 6];

/**
 * @typedef {{ from: number, to: number, value: number, isCalm?: boolean }} Link isCalm: it stays where it was
 * @typedef {{ names: [string[], string[]], titles: [string, string], links: Link[], words: (focus: Focus) => string, label: string }} FlowData
 * @typedef {{ side: 0 | 1, index: number, other?: number }} Focus other: the ribbon to that expert only
 * @typedef {{ y: number, height: number }} Bar
 * @typedef {{ link: Link, y0: number, y1: number, thickness: number }} Ribbon y0, y1: their middles
 * @typedef {{ bars: [Bar[], Bar[]], ribbons: Ribbon[], left: number, right: number }} Layout
 * @typedef {{ show: (data: FlowData) => void, schedule: () => void }} Flow
 */

/** @param {FlowData | null} data @param {number} width @returns {number} */
function heightOf(data, width) {
  const most = Math.max(1, ...(data?.names ?? []).map((names) => names.length));
  return TOP + BOTTOM + Math.max(150, Math.min(width < 480 ? 300 : 400, most * 24));
}

/** @param {FlowData} data @param {number} width @param {number} height @returns {Layout} */
export function layoutFlow({ names, links }, width, height) {
  const room = height - TOP - BOTTOM;
  const total = links.reduce((sum, { value }) => sum + value, 0);
  const gap = Math.min(8, (room * 0.3) / Math.max(1, Math.max(names[0].length, names[1].length) - 1));
  const most = Math.max(names[0].length, names[1].length);
  const scale = total > 0 ? (room - gap * (most - 1)) / total : 0;
  const bars = /** @type {[Bar[], Bar[]]} */ (names.map((side, s) => stacked(side.length, links, s === 0 ? "from" : "to", scale, room)));
  const used = [bars[0].map(() => 0), bars[1].map(() => 0)];
  const ordered = [...links].filter(({ value }) => value > 0).sort((a, b) => a.from - b.from || a.to - b.to);
  const ribbons = ordered.map((link) => {
    const thickness = link.value * scale;
    const y0 = bars[0][link.from].y + used[0][link.from] + thickness / 2;
    used[0][link.from] += thickness;
    return { link, y0, y1: 0, thickness };
  });
  for (const ribbon of [...ribbons].sort((a, b) => a.link.to - b.link.to || a.link.from - b.link.from)) {
    ribbon.y1 = bars[1][ribbon.link.to].y + used[1][ribbon.link.to] + ribbon.thickness / 2;
    used[1][ribbon.link.to] += ribbon.thickness;
  }
  const widest = ribbons.sort((a, b) => b.thickness - a.thickness).slice(0, DRAWN);
  return { bars, ribbons: widest, left: 34, right: width - 34 };
}

/** @param {number} count @param {Link[]} links @param {"from" | "to"} end @param {number} scale @param {number} room @returns {Bar[]} spread over the whole height */
function stacked(count, links, end, scale, room) {
  const sizes = new Float64Array(count);
  for (const link of links) sizes[link[end]] += link.value * scale;
  const filled = sizes.reduce((sum, size) => sum + size, 0);
  const gap = count > 1 ? (room - filled) / (count - 1) : 0;
  let y = TOP + (count > 1 ? 0 : (room - filled) / 2);
  return Array.from(sizes, (height) => {
    const bar = { y, height };
    y += height + gap;
    return bar;
  });
}

/**
 * @param {{ host: HTMLElement, frame: import("./_frame.js").Frame, choose: (focus: Focus) => void }} options
 * @returns {Flow}
 */
export function createFlow({ host, frame, choose }) {
  /** @type {FlowData | null} */
  let data = null;
  /** @type {Focus | null} */
  let focus = null;
  const readout = h("p", { class: "moe-readout" });
  const surface = createCanvas({
    host, label: "", signal: frame.signal,
    height: (width) => heightOf(data, width),
    draw: (context, width, height) => data !== null && draw(context, layoutFlow(data, width, height), data, focus, frame.colour),
  });
  host.after(readout);
  const tell = () => {
    readout.textContent = data === null || focus === null ? "Point at an expert or a ribbon, or move with the arrow keys, to read it." : data.words(focus);
    surface.schedule();
  };
  const moveTo = (/** @type {Focus | null} */ place) => {
    focus = place;
    tell();
  };
  onPointer(surface.canvas, (at, isPress) => {
    if (at === null || data === null) return;
    const { clientWidth, clientHeight } = surface.canvas;
    const found = under(layoutFlow(data, clientWidth, clientHeight), at);
    if (found === null) return;
    if (isPress || found.side !== focus?.side || found.index !== focus.index || found.other !== focus.other) moveTo(found);
    if (isPress) choose(found);
  }, frame.signal);
  surface.canvas.addEventListener("keydown", (event) => {
    if (data === null) return;
    if (event.key === "Enter" && focus !== null) choose(focus);
    const target = after(event.key, focus, data);
    if (target === undefined) return;
    event.preventDefault();
    moveTo(target);
    frame.say(readout.textContent ?? "");
  }, { signal: frame.signal });
  return {
    show(fresh) {
      data = fresh;
      if (focus !== null && focus.index >= data.names[focus.side].length) focus = null;
      surface.canvas.setAttribute("aria-label", `${data.label} Up and down move between experts, left and right between sides.`);
      tell();
    },
    schedule: surface.schedule,
  };
}

/** @param {string} key @param {Focus | null} focus @param {FlowData} data @returns {Focus | null | undefined} undefined: not a key of the picture */
function after(key, focus, { names }) {
  if (key === "Escape") return null;
  const { side, index } = focus ?? { side: /** @type {0 | 1} */ (0), index: -1 };
  /** @type {Record<string, [0 | 1, number]>} */
  const moves = {
    ArrowUp: [side, index - 1], ArrowDown: [side, index + 1], ArrowLeft: [0, Math.max(0, index)], ArrowRight: [1, Math.max(0, index)],
    Home: [side, 0], End: [side, names[side].length - 1],
  };
  const target = moves[key];
  if (target === undefined) return undefined;
  return { side: target[0], index: Math.max(0, Math.min(names[target[0]].length - 1, target[1])) };
}

/** @param {Layout} layout @param {{ x: number, y: number }} at @returns {Focus | null} */
function under({ bars, ribbons, left, right }, { x, y }) {
  for (const side of /** @type {(0 | 1)[]} */ ([0, 1])) {
    if (side === 0 ? x > left + BAR : x < right - BAR) continue;
    const distance = (/** @type {Bar} */ bar) => Math.max(bar.y - y, y - bar.y - bar.height, 0);
    const index = bars[side].reduce((best, bar, i) => (distance(bar) < distance(bars[side][best]) ? i : best), 0);
    return bars[side].length > 0 ? { side, index } : null;
  }
  const share = (x - left - BAR) / (right - left - 2 * BAR);
  // The narrowest ribbon under the pointer: a wide one can be reached elsewhere.
  const hit = ribbons.filter((ribbon) => Math.abs(middleAt(ribbon, share) - y) <= ribbon.thickness / 2 + 1).at(-1);
  return hit === undefined ? null : { side: 0, index: hit.link.from, other: hit.link.to };
}

/** @param {Ribbon} ribbon @param {number} share 0..1 of the way @returns {number} */
function middleAt({ y0, y1 }, share) {
  return y0 + (y1 - y0) * share * share * (3 - 2 * share);
}

/** @param {Link} link @param {Focus | null} focus */
function isLit({ from, to }, focus) {
  if (focus === null) return false;
  if (focus.other !== undefined) return from === focus.index && to === focus.other;
  return (focus.side === 0 ? from : to) === focus.index;
}

/**
 * @param {CanvasRenderingContext2D} context @param {Layout} layout @param {FlowData} data @param {Focus | null} focus
 * @param {(name: string) => string} colour
 */
function draw(context, layout, { names, titles }, focus, colour) {
  const { bars, ribbons, left, right } = layout;
  const order = [...ribbons].sort((a, b) => Number(isLit(a.link, focus)) - Number(isLit(b.link, focus)) || Number(b.link.isCalm ?? false) - Number(a.link.isCalm ?? false));
  for (const ribbon of order) {
    const isOn = isLit(ribbon.link, focus);
    context.globalAlpha = focus === null ? (ribbon.link.isCalm ? 0.55 : 0.5) : isOn ? 0.9 : 0.14;
    context.fillStyle = colour(ribbon.link.isCalm ? "empty" : "mark");
    drawRibbon(context, ribbon, left + BAR, right - BAR);
  }
  context.globalAlpha = 1;
  context.textBaseline = "middle";
  bars.forEach((side, s) => drawBars(context, { side, s, names: names[s], x: s === 0 ? left : right - BAR }, focus, colour));
  context.font = `600 12px ${colour("font")}`;
  context.fillStyle = colour("muted");
  context.textBaseline = "top";
  context.textAlign = "left";
  context.fillText(titles[0], 2, 2);
  context.textAlign = "right";
  context.fillText(titles[1], right + 32, 2);
}

/** @param {CanvasRenderingContext2D} context @param {Ribbon} ribbon @param {number} left @param {number} right */
function drawRibbon(context, ribbon, left, right) {
  const half = Math.max(0.5, ribbon.thickness / 2);
  const pieces = 24;
  context.beginPath();
  for (let i = 0; i <= pieces; i += 1) context.lineTo(left + ((right - left) * i) / pieces, middleAt(ribbon, i / pieces) - half);
  for (let i = pieces; i >= 0; i -= 1) context.lineTo(left + ((right - left) * i) / pieces, middleAt(ribbon, i / pieces) + half);
  context.closePath();
  context.fill();
}

/**
 * @param {CanvasRenderingContext2D} context @param {{ side: Bar[], s: number, names: string[], x: number }} bars
 * @param {Focus | null} focus @param {(name: string) => string} colour
 */
function drawBars(context, { side, s, names, x }, focus, colour) {
  let lowest = -Infinity;
  side.forEach(({ y, height }, i) => {
    const isOn = focus !== null && focus.side === s && focus.index === i;
    context.fillStyle = colour(isOn ? "event" : height > 0 ? "text" : "empty");
    context.fillRect(x, height > 0 ? y : y - 0.5, BAR, Math.max(1, height));
    const middle = y + height / 2;
    if (!isOn && middle - lowest < 12) return;
    lowest = middle;
    context.font = `${isOn ? "600 " : ""}12px ${colour("font")}`;
    context.textAlign = s === 0 ? "right" : "left";
    context.fillText(names[i], s === 0 ? x - 5 : x + BAR + 5, middle + 0.5);
  });
}
