// @ts-check
/** The line of Python that does what a button does, and a button that copies it. */
import { button, h } from "./_dom.js";

/** Left out of the line when they have this value, as in `workbench.hub.commands`. @type {Record<string, Record<string, any>>} */
const DEFAULTS = {
  generate: { temperature: 0.8, top_p: 0.95, seed: 0 },
  step: { count: 1 },
  swap_router: { carry: true, rebuild_experts: false },
};

/** The argument that stands first, without its name. @type {Record<string, string>} */
const FIRST = { generate: "prompt", swap_router: "name" };

/**
 * @param {string} op name of a command
 * @param {Record<string, any>} args its arguments
 * @returns {string} empty where Python needs none
 */
export function pythonLine(op, args) {
  if (op === "take_over") return "";
  if (op === "undo" || op === "rewind") return `session.${op}()`;
  if (op === "generate") return `session.ask(${listed(op, args).join(", ")})`;
  if (op === "set_shadow") return `session.set_shadow(${literal(specOf(args.name, args.args ?? {}))})`;
  if (op !== "swap_router") return `session.live.command(${[literal(op), ...listed(op, args)].join(", ")})`;
  const { args: own, ...known } = args;
  const router = Object.entries(own ?? {}).map(([key, value]) => `${key}=${literal(value)}`);
  return `session.swap_router(${[...listed(op, known), ...router].join(", ")})`;
}

/** @param {string} op @param {Record<string, any>} args @returns {string[]} arguments as a call lists them */
function listed(op, args) {
  const first = FIRST[op];
  const byName = Object.entries(args).filter(([name, value]) => name !== first && value !== DEFAULTS[op]?.[name]);
  return [...(first in args ? [literal(args[first])] : []), ...byName.map(([name, value]) => `${name}=${literal(value)}`)];
}

/** @param {string | null} name @param {Record<string, any>} args @returns {string | null} a router with its arguments in one text */
function specOf(name, args) {
  const parts = Object.entries(args).map(([key, value]) => `${key}=${literal(value)}`);
  return name === null || parts.length === 0 ? name : `${name}:${parts.join(",")}`;
}

/** @param {any} value a plain value @returns {string} as Python writes it */
export function literal(value) {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "string") return quoted(value);
  if (typeof value === "object") return `{${Object.entries(value).map(([key, part]) => `${quoted(key)}: ${literal(part)}`).join(", ")}}`;
  return String(value);
}

/** @param {string} text @returns {string} in single quotes, as Python prefers them */
function quoted(text) {
  const mark = text.includes("'") && !text.includes('"') ? '"' : "'";
  /** @type {Record<string, string>} */
  const short = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", [mark]: `\\${mark}` };
  const signs = Array.from(text, (sign) => short[sign] ?? (sign !== " " && /[\p{C}\p{Z}]/u.test(sign) ? numbered(sign) : sign));
  return mark + signs.join("") + mark;
}

/** @param {string} sign @returns {string} an escape with the number of a sign that is not printed */
function numbered(sign) {
  const code = sign.codePointAt(0) ?? 0;
  const digits = code.toString(16);
  return code < 0x100 ? `\\x${digits.padStart(2, "0")}` : code < 0x10000 ? `\\u${digits.padStart(4, "0")}` : `\\U${digits.padStart(8, "0")}`;
}

/**
 * A button that copies a text; where the browser keeps the clipboard closed, the text is shown and selected instead.
 * @param {() => string} text made when the button is pressed
 * @param {AbortSignal} signal
 * @returns {{ element: HTMLElement, control: HTMLButtonElement }}
 */
export function copyButton(text, signal) {
  const control = button("Copy as Python");
  const code = h("code", { class: "moe-code", hidden: true, tabindex: 0, role: "textbox", "aria-readonly": "true", "aria-label": "Python of this action" });
  const said = h("span", { class: "moe-said", role: "status" });
  const offer = () => {
    code.textContent = text();
    code.hidden = false;
    getSelection()?.selectAllChildren(code);
    said.textContent = "Selected: copy it with Ctrl+C or ⌘C.";
  };
  for (const type of ["pointerenter", "focus"]) control.addEventListener(type, () => void (control.title = text()), { signal });
  control.addEventListener("click", () => {
    if (navigator.clipboard === undefined) return offer();
    navigator.clipboard.writeText(text()).then(() => {
      code.hidden = true;
      said.textContent = "Copied.";
    }, offer);
  }, { signal });
  return { element: h("span", { class: "moe-copy" }, control, said, code), control };
}
