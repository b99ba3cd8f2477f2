// @ts-check
/** "Copy as Python": to the clipboard where the page may, else selected for the reader to copy. */
import { h } from "./_dom.js";
import { iconButton } from "./_press.js";

/** How long a button says that it has copied [ms]. */
const SAID_MILLISECONDS = 1600;

/**
 * @param {string} label
 * @param {() => string} text
 * @param {AbortSignal} signal
 * @returns {HTMLButtonElement}
 */
export function copyButton(label, text, signal) {
  const { element, words } = iconButton("copy", label);
  element.addEventListener("click", async (event) => {
    event.preventDefault();
    words.textContent = (await copy(text(), element)) ? "Copied" : "Copy failed";
    setTimeout(() => void (words.textContent = label), SAID_MILLISECONDS);
  }, { signal });
  return element;
}

/** @param {string} text @param {HTMLElement} near @returns {Promise<boolean>} */
async function copy(text, near) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Not a secure page, or the host forbids it: the older way needs a field that holds the text.
    const field = h("textarea", { class: "moe-hidden", "aria-hidden": "true", tabindex: -1 });
    field.value = text;
    near.after(field);
    field.select();
    const isCopied = document.execCommand("copy");
    field.remove();
    near.focus();
    return isCopied;
  }
}
