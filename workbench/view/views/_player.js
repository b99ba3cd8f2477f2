// @ts-check
/** Play and pause through recorded steps: ten a second, two a second for people who asked for less motion. */

/**
 * @param {HTMLButtonElement} toggle
 * @param {() => { index: number, count: number }} place
 * @param {(index: number) => void} goTo
 * @param {AbortSignal} signal
 * @returns {{ stop: () => void }}
 */
export function createPlayer(toggle, place, goTo, signal) {
  let timer = 0;
  const label = () => {
    toggle.textContent = timer === 0 ? "▶ Play" : "❚❚ Pause";
    toggle.setAttribute("aria-label", timer === 0 ? "Play through the recorded steps" : "Pause");
  };
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    label();
  };
  const tick = () => {
    const { index, count } = place();
    if (index + 1 >= count || !toggle.isConnected) return stop();
    if (!document.hidden) goTo(Math.min(count - 1, index + Math.max(1, Math.round(count / 150))));
  };
  const start = () => {
    const { index, count } = place();
    if (count < 2) return;
    if (index >= count - 1) goTo(0);
    const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    timer = window.setInterval(tick, isCalm ? 500 : 100);
    label();
  };
  toggle.addEventListener("click", () => (timer === 0 ? start() : stop()), { signal });
  signal.addEventListener("abort", stop);
  label();
  return { stop };
}
