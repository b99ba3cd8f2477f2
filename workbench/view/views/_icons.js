// @ts-check
/** Small pictures beside words, drawn in the colour of the text; a screen reader hears the words alone. */

const PATHS = {
  check: "M6.2 12.6 2.2 8.6l1.3-1.3 2.7 2.7 6.3-6.3 1.3 1.3z",
  clock: "M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zm0 1.7a4.8 4.8 0 1 1 0 9.6 4.8 4.8 0 0 1 0-9.6zM7.2 4.8v3.7l2.7 1.6.8-1.4-1.9-1.1V4.8z",
  copy: "M5.5 1.5h7a1.2 1.2 0 0 1 1.2 1.2V11h-1.5V3H5.5zM3.2 4.5h6.6A1.2 1.2 0 0 1 11 5.7v7.6a1.2 1.2 0 0 1-1.2 1.2H3.2A1.2 1.2 0 0 1 2 13.3V5.7a1.2 1.2 0 0 1 1.2-1.2zM3.5 6v7h6V6z",
  down: "M3 5.6 8 10.6l5-5-1.2-1.1L8 8.3 4.2 4.5z",
  flag: "M3.2 1.8h1.5v.7h8.6L11.2 6l2.1 3.5H4.7v4.9H3.2z",
  note: "M2.5 2h11v8.5L10 14H2.5zM4 3.5v9h5V9.5h3v-6zM5.5 5h5v1.3h-5zM5.5 7.5H9v1.3H5.5z",
  pause: "M3.8 2.8h3v10.4h-3zM9.2 2.8h3v10.4h-3z",
  play: "M4 2.2v11.6L13.2 8z",
  rewind: "M8 3.2V7l5.6-3.8v9.6L8 9v3.8L1.6 8z",
  signal: "M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM4.2 2.9 3.1 1.8a8.8 8.8 0 0 0 0 12.4l1.1-1.1a7.2 7.2 0 0 1 0-10.2zM11.8 2.9l1.1-1.1a8.8 8.8 0 0 1 0 12.4l-1.1-1.1a7.2 7.2 0 0 0 0-10.2z",
  step: "M2.8 2.6v10.8L9.8 8zM10.6 2.8h2.6v10.4h-2.6z",
  stop: "M3.2 3.2h9.6v9.6H3.2z",
  swap: "M4 4.1h6V1.8l4.2 3.4L10 8.6V6.3H4zM12 9.7H6V7.4l-4.2 3.4L6 14.2v-2.3h6z",
  undo: "M6.4 2.2 1.8 6.4l4.6 4.2V7.7h3.2a2.4 2.4 0 0 1 0 4.8H5.2v1.9h4.4a4.3 4.3 0 0 0 0-8.6H6.4z",
  warning: "M8 1.2 15.4 14.4H.6zM7.1 5.8v4.4h1.8V5.8zM7.1 11.2v1.8h1.8v-1.8z",
};

/** @typedef {keyof typeof PATHS} IconName */

/** The name of a namespace, not an address: nothing is asked for there. */
const SVG = ["http", "//www.w3.org/2000/svg"].join(":");

/** @param {IconName} name @returns {Element} */
export function icon(name) {
  const picture = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 16 16", width: "14", height: "14", "aria-hidden": "true", class: "moe-icon" })) picture.setAttribute(key, value);
  picture.append(document.createElementNS(SVG, "path"));
  setIcon(picture, name);
  return picture;
}

/** @param {Element} picture @param {IconName} name changes the picture, if it is another one */
export function setIcon(picture, name) {
  const path = picture.firstElementChild;
  if (path === null || picture.getAttribute("data-icon") === name) return;
  picture.setAttribute("data-icon", name);
  path.setAttribute("d", PATHS[name]);
  path.setAttribute("fill", "currentColor");
  path.setAttribute("fill-rule", "evenodd");
}
