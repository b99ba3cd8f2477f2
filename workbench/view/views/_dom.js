// @ts-check
/** Elements without markup strings: text reaches the page through text nodes only, so a hostile token stays text. */

let serial = 0;

/** @param {string} stem @returns {string} an id that is unique on the page */
export function uniqueId(stem) {
  serial += 1;
  return `moe-${stem}-${serial}-${Math.floor(performance.now())}`;
}

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string | number | boolean | undefined>} [attributes] false and undefined leave the attribute out
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children);
  return element;
}

/**
 * @param {string} label
 * @param {[string, string][]} options value and text
 * @returns {{ field: HTMLElement, select: HTMLSelectElement }}
 */
export function selectField(label, options) {
  const select = h("select", { class: "moe-select" });
  setOptions(select, options);
  return { field: h("label", { class: "moe-field" }, h("span", {}, label), select), select };
}

/**
 * Replaces the options and keeps the choice where it still exists.
 * @param {HTMLSelectElement} select
 * @param {[string, string][]} options
 */
export function setOptions(select, options) {
  const before = select.value;
  const same =
    select.options.length === options.length &&
    options.every(([value, text], i) => select.options[i].value === value && select.options[i].text === text);
  if (same) return;
  select.replaceChildren(...options.map(([value, text]) => h("option", { value }, text)));
  if (options.some(([value]) => value === before)) select.value = before;
}

/**
 * @param {string} label
 * @param {{ min?: number, max?: number, step?: number, value?: number }} range
 * @returns {{ field: HTMLElement, caption: HTMLElement, input: HTMLInputElement, output: HTMLElement }}
 */
export function sliderField(label, { min = 0, max = 1, step = 1, value = 0 }) {
  const input = h("input", { type: "range", class: "moe-slider", min, max, step, value });
  const output = h("span", { class: "moe-value" });
  const caption = h("span", {}, label);
  return { field: h("label", { class: "moe-field" }, caption, input, output), caption, input, output };
}

/**
 * @param {string} text
 * @param {Record<string, string | boolean>} [attributes]
 * @returns {HTMLButtonElement}
 */
export function button(text, attributes = {}) {
  return h("button", { type: "button", class: "moe-button", ...attributes }, text);
}

/**
 * A real table of the numbers behind a picture.
 * @param {{ caption: string, head: string[], rows: (string | number)[][] }} table
 * @returns {HTMLTableElement}
 */
export function tableElement({ caption, head, rows }) {
  const cell = (/** @type {string | number} */ value, /** @type {number} */ i) =>
    i === 0 ? h("th", { scope: "row" }, String(value)) : h("td", {}, String(value));
  return h(
    "table",
    { class: "moe-table" },
    h("caption", {}, caption),
    h("thead", {}, h("tr", {}, ...head.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, ...rows.map((row) => h("tr", {}, ...row.map(cell)))),
  );
}
