// @ts-check
/** Light or dark, decided from what is really behind the view: works in Jupyter, Panel, VS Code and a plain page. */
import theme from "./theme.json" with { type: "json" };

/** @param {"light" | "dark"} mode @returns {string} CSS declarations of the `--moe-*` variables */
function declarations(mode) {
  return Object.entries(theme.variables)
    .map(([name, value]) => {
      const host = "host" in value ? `var(${value.host}, ${value[mode]})` : value[mode];
      return `--moe-${name}: ${host};`;
    })
    .join(" ");
}

/** @returns {string} style rules that define the variables for both modes */
export function variableRules() {
  return (
    `.moe-view { ${declarations("light")} color-scheme: light; }\n` +
    `.moe-view[data-theme="dark"] { ${declarations("dark")} color-scheme: dark; }\n`
  );
}

/** @type {OffscreenCanvasRenderingContext2D | null} */
let pixel = null;

/** @param {string} colour in any notation of CSS @returns {[number, number, number, number]} red, green, blue of 255, and alpha of 1 */
function channels(colour) {
  // the canvas knows every colour space; a host may use oklch or color().
  pixel ??= new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  if (pixel === null) return [0, 0, 0, 0];
  pixel.clearRect(0, 0, 1, 1);
  pixel.fillStyle = colour;
  pixel.fillRect(0, 0, 1, 1);
  const [red, green, blue, alpha] = pixel.getImageData(0, 0, 1, 1).data;
  return [red, green, blue, alpha / 255];
}

/** @param {Element} element @returns {boolean} */
function isOnDark(element) {
  /** @type {Node | null} */
  let node = element.parentNode;
  while (node !== null) {
    if (node instanceof ShadowRoot) node = node.host;
    if (node instanceof Element) {
      const [red, green, blue, alpha] = channels(getComputedStyle(node).backgroundColor);
      if (alpha > 0.5) return 0.299 * red + 0.587 * green + 0.114 * blue < 128;
    }
    node = node.parentNode;
  }
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

/**
 * Keeps `data-theme` of the view right, and calls back when it changes.
 * @param {HTMLElement} root
 * @param {() => void} onChange
 * @param {AbortSignal} signal
 */
export function watchTheme(root, onChange, signal) {
  const apply = () => {
    const mode = isOnDark(root) ? "dark" : "light";
    if (root.dataset.theme === mode) return;
    root.dataset.theme = mode;
    onChange();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => requestAnimationFrame(apply), { signal });
  const observer = new MutationObserver(() => requestAnimationFrame(apply));
  for (const node of [document.documentElement, document.body]) observer.observe(node, { attributes: true });
  signal.addEventListener("abort", () => observer.disconnect());
  apply();
  // A host may attach the element only after render returns.
  requestAnimationFrame(apply);
}

/**
 * @param {HTMLElement} root
 * @returns {(name: string) => string} resolved value of a `--moe-*` variable, for canvas
 */
export function resolved(root) {
  const style = getComputedStyle(root);
  return (name) => style.getPropertyValue(`--moe-${name}`).trim();
}
