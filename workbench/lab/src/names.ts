/** What runs, views and panels are called. */
import type { RunState } from "./runs";

/** What a run is called where there is little room. */
export function nameOf(run: RunState | null, id: string): string {
  return run?.title || `Run ${id.slice(0, 8)}`;
}

/** The name of a view or of a setting in words. */
export function wordsOf(name: string): string {
  const text = name.replaceAll("_", " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}
