// @ts-check
/** Buttons with a picture, and buttons that ask once before they end something. */
import { button, h } from "./_dom.js";
import { icon } from "./_icons.js";

/** How long a button waits for the second press [ms]. */
const SURE_MILLISECONDS = 4000;

/** @param {import("./_icons.js").IconName} name @param {string} text @param {Record<string, string | boolean>} [attributes] */
export function iconButton(name, text, attributes = {}) {
  const [picture, words] = [icon(name), h("span", {}, text)];
  const element = button("", attributes);
  element.replaceChildren(picture, words);
  return { element, picture, words };
}

/**
 * On or off for a reason that changes by itself: the button keeps the focus, so that the keyboard does not lose its place.
 * @param {HTMLButtonElement} element @param {boolean} isOn
 */
export function allow(element, isOn) {
  if (isOn) element.removeAttribute("aria-disabled");
  else element.setAttribute("aria-disabled", "true");
}

/** @param {HTMLButtonElement} element @returns {boolean} */
export function isAllowed(element) {
  return element.getAttribute("aria-disabled") !== "true";
}

/**
 * A button that asks once: the first press arms it, the second acts, and after a while it forgets.
 * @param {{ element: HTMLButtonElement, words: HTMLElement }} target @param {string} question @param {() => void} act @param {AbortSignal} signal
 */
export function askOnce({ element, words }, question, act, signal) {
  const label = words.textContent ?? "";
  let timer = 0;
  const disarm = () => {
    clearTimeout(timer);
    timer = 0;
    words.textContent = label;
    element.classList.remove("moe-sure");
  };
  element.addEventListener("click", () => {
    if (!isAllowed(element)) return;
    if (timer !== 0) {
      disarm();
      return act();
    }
    words.textContent = question;
    element.classList.add("moe-sure");
    timer = window.setTimeout(disarm, SURE_MILLISECONDS);
  }, { signal });
  element.addEventListener("blur", disarm, { signal });
  signal.addEventListener("abort", disarm);
}
