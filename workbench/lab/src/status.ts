/** One line in the status bar: the run that a person most likely means, and whether that is so now. */
import { type ISignal, Signal } from "@lumino/signaling";
import { Widget } from "@lumino/widgets";
import { h } from "moe-views/_dom.js";
import { icon, setIcon } from "moe-views/_icons.js";
import { number } from "moe-views/_number.js";
import { statusOf, timeOfDay } from "moe-views/_words.js";
import { nameOf } from "./names";
import type { IWorkbench } from "./tokens";

/** How often it looks whether what it shows has become stale [ms]. */
const LOOK_EVERY = 2000;

export class StatusItem extends Widget {
  private readonly workbench: IWorkbench;
  private readonly changes = new Signal<this, void>(this);
  private readonly picture = icon("clock");
  private readonly words = h("span", {});
  private readonly press = h("button", { type: "button", class: "moe-lab-status" }, this.picture, this.words);
  private readonly timer: number;

  constructor(workbench: IWorkbench, open: (run: string) => void) {
    super();
    this.workbench = workbench;
    this.addClass("moe-lab-status-item");
    this.node.append(this.press);
    this.press.addEventListener("click", () => {
      const run = workbench.runs.active;
      if (run !== null) open(run.id);
    });
    workbench.runs.changed.connect(this.onRuns, this);
    workbench.preferences.changed.connect(this.onRuns, this);
    this.timer = window.setInterval(() => this.onRuns(), LOOK_EVERY);
  }

  /** Whether there is a run to speak of, and the user wants to hear of it. */
  get isActive(): boolean {
    return this.workbench.preferences.showInStatusBar && this.workbench.runs.active !== null;
  }

  get activeChanged(): ISignal<this, void> {
    return this.changes;
  }

  dispose(): void {
    if (this.isDisposed) return;
    clearInterval(this.timer);
    this.workbench.runs.changed.disconnect(this.onRuns, this);
    this.workbench.preferences.changed.disconnect(this.onRuns, this);
    Signal.clearData(this);
    super.dispose();
  }

  private onRuns(): void {
    const { runs, trans } = this.workbench;
    const run = runs.active;
    this.changes.emit();
    if (run === null || document.hidden) return;
    const { word, icon: picture } = statusOf(run.status);
    const isStale = runs.isStale(run);
    setIcon(this.picture, isStale ? "warning" : picture);
    const loss = typeof run.loss === "number" && Number.isFinite(run.loss) ? ` · ${trans.__("loss %1", number(run.loss, 4))}` : "";
    const stale = isStale ? ` · ${trans.__("stale, from %1", timeOfDay(runs.heardAt(run) / 1000))}` : "";
    const badge = run.badge ? ` · ${run.badge}` : "";
    const text = `${trans.__(word)} · ${trans.__("step %1", Math.round(run.step ?? 0).toLocaleString("en-US"))}${loss}${badge}${stale}`;
    if (this.words.textContent !== text) this.words.textContent = text;
    this.press.title = trans.__("%1: open its live views", nameOf(run, run.id));
    this.press.classList.toggle("moe-lab-stale", isStale);
  }
}
