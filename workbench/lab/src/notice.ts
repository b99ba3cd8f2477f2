/** What stands where the runs will be: never a spinner without an end. After five seconds it says why, and what to do. */
import type { TranslationBundle } from "@jupyterlab/translation";
import { button, h } from "moe-views/_dom.js";
import type { Runs } from "./runs";
import type { Problem } from "./server";

const PATIENCE = 5000;

export class Notice {
  private readonly runs: Runs;
  private readonly trans: TranslationBundle;
  private readonly cause = h("h3", {});
  private readonly fix = h("p", {});
  private readonly again: HTMLButtonElement;
  private began = 0;
  private timer = 0;

  readonly root: HTMLElement;

  constructor(runs: Runs, trans: TranslationBundle) {
    [this.runs, this.trans] = [runs, trans];
    this.again = button(trans.__("Try again now"));
    this.again.addEventListener("click", () => {
      this.began = 0;
      runs.retry();
      this.update();
    });
    this.root = h("div", { class: "moe-lab-notice", role: "status" }, this.cause, this.fix, this.again);
  }

  /** Show what is wrong, or nothing. */
  update(): void {
    clearTimeout(this.timer);
    const problem = this.problem();
    this.root.hidden = problem === null;
    if (problem === null) return;
    this.cause.textContent = problem.cause;
    this.fix.textContent = problem.fix;
    this.again.hidden = problem.fix === "";
  }

  dispose(): void {
    clearTimeout(this.timer);
  }

  private problem(): Problem | null {
    const { runs, trans } = this;
    if (runs.problem !== null) return runs.problem;
    if (runs.isKnown) return null;
    if (this.began === 0) this.began = Date.now();
    const left = PATIENCE - (Date.now() - this.began);
    if (left > 0) {
      this.timer = window.setTimeout(() => this.update(), left);
      return { cause: trans.__("Asking the server for its runs…"), fix: "", isFinal: false };
    }
    return {
      cause: trans.__("The Jupyter server has not answered for five seconds."),
      fix: trans.__("It may be busy, or gone. Check the terminal where it runs; this page keeps trying."),
      isFinal: false,
    };
  }
}
