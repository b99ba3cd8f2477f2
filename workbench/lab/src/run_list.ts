/** The runs of this server, newest first: those that go on with their controls, and those that are over. */
import type { TranslationBundle } from "@jupyterlab/translation";
import { h } from "moe-views/_dom.js";
import { isOver, type RunState, type Runs } from "./runs";
import { RunRow } from "./run_row";

/** Runs that are over and shown, the newest of them. */
const MOST_OVER = 10;
/** Runs that ended while this page looked on stay where they were, the newest of them: nobody should have to look for a crash. */
const MOST_SEEN = 3;
/** How often a list that hears nothing looks whether it has become stale [ms]. */
const LOOK_EVERY = 1000;

export class RunList {
  private readonly runs: Runs;
  private readonly trans: TranslationBundle;
  private readonly open: (run: RunState) => void;
  private readonly rows = new Map<string, RunRow>();
  private readonly seen = new Set<string>();
  private readonly list = h("ul", { class: "moe-lab-runs" });
  private readonly endedList = h("ul", { class: "moe-lab-runs" });
  private readonly endedTitle = h("summary", {});
  private readonly empty = h("div", { class: "moe-lab-empty" });
  private timer = 0;

  /** Runs that go on, or a way to get one. */
  readonly root = h("div", {}, this.empty, this.list);
  /** Runs that are over, folded away. */
  readonly ended = h("details", { class: "moe-lab-class", hidden: true }, this.endedTitle, this.endedList);

  constructor(runs: Runs, trans: TranslationBundle, open: (run: RunState) => void) {
    [this.runs, this.trans, this.open] = [runs, trans, open];
    this.list.setAttribute("aria-label", trans.__("Runs"));
    this.endedList.setAttribute("aria-label", trans.__("Runs that are over"));
    const code = h("code", {}, "run = session.train(steps=2000, background=True)");
    this.empty.append(
      h("p", {}, trans.__("Nothing trains now. Start a run here, or in a notebook:")),
      code,
      h("p", {}, trans.__("A run appears here within a second, wherever it was started.")),
    );
  }

  /** Show what the server says now. */
  update(): void {
    const alive = this.runs.list.filter((run) => !isOver(run));
    for (const run of alive) this.seen.add(run.id);
    const justOver = this.runs.list.filter((run) => isOver(run) && this.seen.has(run.id)).slice(0, MOST_SEEN);
    const shown = [...alive, ...justOver];
    const over = this.runs.list.filter((run) => isOver(run) && !justOver.includes(run)).slice(0, MOST_OVER);
    this.empty.hidden = shown.length > 0 || !this.runs.isKnown;
    this.list.hidden = shown.length === 0;
    this.ended.hidden = over.length === 0;
    const title = this.trans.__("Ended (%1)", over.length);
    if (this.endedTitle.textContent !== title) this.endedTitle.textContent = title;
    for (const [id, row] of this.rows) {
      if ([...shown, ...over].some((run) => run.id === id)) continue;
      row.dispose();
      this.rows.delete(id);
    }
    shown.forEach((run, at) => this.place(run, at, this.list));
    over.forEach((run, at) => this.place(run, at, this.endedList));
  }

  /** Look for staleness while it can be seen. */
  watch(isSeen: boolean): void {
    clearInterval(this.timer);
    if (isSeen) this.timer = window.setInterval(() => document.hidden || this.update(), LOOK_EVERY);
  }

  dispose(): void {
    clearInterval(this.timer);
    for (const row of this.rows.values()) row.dispose();
    this.rows.clear();
  }

  private place(run: RunState, at: number, list: HTMLElement): void {
    const actions = { open: this.open, command: (to: RunState, op: string) => this.runs.command(to, op) };
    const row = this.rows.get(run.id) ?? new RunRow(run, actions, this.trans);
    this.rows.set(run.id, row);
    row.show(run, this.runs.isStale(run) ? this.runs.heardAt(run) : 0);
    // Moving a row takes the focus out of it: only what stands elsewhere is moved.
    if (list.children[at] !== row.root) list.insertBefore(row.root, list.children[at] ?? null);
  }
}
