// @ts-check
/** Whether anybody can see an element: what is not seen is not fed. */

/**
 * @param {HTMLElement} element
 * @param {() => void} onChange
 * @param {AbortSignal} signal
 * @returns {{ isSeen: () => boolean, isCalm: () => boolean }} isCalm: the reader asked for less motion
 */
export function createSight(element, onChange, signal) {
  let isSeen = true;
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  // Half a screen of reserve, so that what is scrolled to has its numbers already.
  const observer = new IntersectionObserver((entries) => {
    const now = entries[entries.length - 1].isIntersecting;
    if (now === isSeen) return;
    isSeen = now;
    onChange();
  }, { rootMargin: "50%" });
  observer.observe(element);
  calm.addEventListener("change", onChange, { signal });
  signal.addEventListener("abort", () => observer.disconnect());
  return { isSeen: () => isSeen, isCalm: () => calm.matches };
}
