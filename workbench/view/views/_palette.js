// @ts-check
/** Colours: cividis for quantities, at most eight Okabe-Ito hues for identities. The tables are in theme.json. */
import theme from "./theme.json" with { type: "json" };

const STEPS = theme.cividis.length / 6;

/**
 * @param {number} share position on the scale, clamped to 0..1
 * @returns {string} `#rrggbb`
 */
export function cividis(share) {
  const index = Math.min(STEPS - 1, Math.max(0, Math.round(share * (STEPS - 1))));
  return "#" + theme.cividis.slice(index * 6, index * 6 + 6);
}

/**
 * Blue for less, orange for more, grey between: for differences, and for nothing else.
 * @param {number} share -1 to 1, clamped
 * @param {boolean} isDark
 * @returns {string} `#rrggbb`
 */
export function diverging(share, isDark) {
  const { low, middle, high } = theme.diverging[isDark ? "dark" : "light"];
  const end = share < 0 ? low : high;
  const part = Math.min(1, Math.abs(share));
  const channel = (/** @type {number} */ at) => {
    const [from, to] = [parseInt(middle.slice(at, at + 2), 16), parseInt(end.slice(at, at + 2), 16)];
    return Math.round(from + (to - from) * part).toString(16).padStart(2, "0");
  };
  return `#${channel(1)}${channel(3)}${channel(5)}`;
}

/**
 * @param {boolean} isDark
 * @returns {string[]} eight hues that people with colour-vision deficiency can tell apart
 */
export function hues(isDark) {
  return isDark ? theme.okabe_ito.dark : theme.okabe_ito.light;
}

/** @param {string} hex `#rrggbb` @returns {number} relative luminance, 0..1 */
export function luminance(hex) {
  const channel = (/** @type {number} */ at) => {
    const value = parseInt(hex.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  };
  return 0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5);
}

/** @param {string} hex background @returns {string} black or white, whichever reads better on it */
export function inkOn(hex) {
  // 0.179 is where black and white text have the same WCAG contrast.
  return luminance(hex) > 0.179 ? "#000000" : "#ffffff";
}
