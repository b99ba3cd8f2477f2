// @ts-check
/** Start-up of a static page: every `[data-view]` element shows its view with the payload that lies beside it. */
import { createModel } from "./_model.js";

/** @param {string} text base64 @returns {ArrayBuffer} */
function bytesOf(text) {
  const raw = atob(text.trim());
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i += 1) bytes[i] = raw.charCodeAt(i);
  return bytes.buffer;
}

/**
 * @param {Record<string, { render: (host: { model: import("./_model.js").Model, el: HTMLElement }) => () => void }>} views
 */
export function start(views) {
  for (const note of document.querySelectorAll("[data-without-script]")) note.remove();
  /** @type {import("./_model.js").Model[]} */
  const models = [];
  for (const el of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-show]"))) {
    const source = document.getElementById(el.dataset.payload ?? "");
    const model = createModel({ payload: bytesOf(source?.textContent ?? ""), selection: {} });
    // One selection for the whole page: what is chosen in one view is shown in the others.
    model.on("change:selection", () => models.forEach((other) => other.set("selection", model.get("selection"))));
    models.push(model);
    views[el.dataset.show ?? ""].render({ model, el });
  }
}
