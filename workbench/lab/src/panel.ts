/** A run in the main area: the shared live view, hosted by the extension. */
import { Widget } from "@lumino/widgets";
import type { Message } from "@lumino/messaging";
import { h } from "moe-views/_dom.js";
import { createModel } from "moe-views/_model.js";
import { signIcon } from "./icons";
import { nameOf, wordsOf } from "./names";
import { Notice } from "./notice";
import type { RunState } from "./runs";
import type { IWorkbench } from "./tokens";

/** A run that has not said anything for so long is opened all the same: the view says what is wrong [s]. */
const STARTING_LIMIT = 90;

type Model = ReturnType<typeof createModel>;

export interface PanelOptions {
  run: string;
  /** One view alone; all that the user prefers when empty. */
  view: string;
}

export class RunPanel extends Widget {
  private readonly workbench: IWorkbench;
  private readonly model: Model;
  private end: (() => void) | null = null;
  private isWanted = false;
  private readonly notice: Notice;
  private readonly waiting = h("p", { class: "moe-lab-waiting", role: "status" });

  readonly run: string;
  readonly view: string;

  constructor(workbench: IWorkbench, { run, view }: PanelOptions) {
    super();
    this.workbench = workbench;
    [this.run, this.view] = [run, view];
    this.id = panelId({ run, view });
    this.addClass("moe-lab-panel");
    this.node.tabIndex = -1;
    this.title.icon = signIcon;
    this.title.closable = true;
    this.model = createModel(this.traits());
    workbench.preferences.changed.connect(this.onPreferences, this);
    workbench.runs.changed.connect(this.onRuns, this);
    this.notice = new Notice(workbench.runs, workbench.trans);
    this.notice.root.hidden = true;
    this.node.append(this.notice.root, this.waiting);
    this.onRuns();
  }

  dispose(): void {
    if (this.isDisposed) return;
    this.isWanted = false;
    this.notice.dispose();
    this.end?.();
    this.end = null;
    this.workbench.preferences.changed.disconnect(this.onPreferences, this);
    this.workbench.runs.changed.disconnect(this.onRuns, this);
    super.dispose();
  }

  protected onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    this.onRuns();
  }

  protected onActivateRequest(message: Message): void {
    super.onActivateRequest(message);
    this.node.focus();
  }

  protected onCloseRequest(message: Message): void {
    super.onCloseRequest(message);
    this.dispose();
  }

  private onRuns(): void {
    const run = this.workbench.runs.find(this.run);
    const label = nameOf(run, this.run);
    this.title.label = this.view === "" ? label : `${wordsOf(this.view)} · ${label}`;
    this.title.caption = this.title.label;
    if (!this.isAttached || this.isWanted) return;
    this.notice.update();
    if (!this.workbench.runs.isKnown) return;
    // A run that is being made ready, or is gone, has no stream: asking for it would only fail.
    const isStarting = run?.status === "starting" && Date.now() / 1000 - run.started_at < STARTING_LIMIT;
    if (run !== null && !isStarting) void this.open();
    else this.waiting.textContent = run === null ? this.absence() : this.readiness(run);
  }

  /** Why there is nothing to see of a run that the server does not know. */
  private absence(): string {
    return this.workbench.trans.__("This server knows no run %1. It ended with the process that trained it, or with the server; start another one from the list of runs.", this.run.slice(0, 8));
  }

  /** What a run that has not said anything yet is doing, and how long that may take. */
  private readiness(run: RunState): string {
    const { trans } = this.workbench;
    if (run.queue_place) return trans.__("%1 waits for the %2, and starts by itself when it is free.", nameOf(run, run.id), run.queue ?? "");
    return trans.__("%1 is being made ready: Python, the model and its text. That takes up to a minute the first time.", nameOf(run, run.id));
  }

  /** The views are fetched when the first panel needs them: a start of JupyterLab without one does not pay for them. */
  private async open(): Promise<void> {
    if (this.isWanted) return;
    this.isWanted = true;
    try {
      const { default: live } = await import("moe-views/live.js");
      if (!this.isWanted) return;
      this.waiting.remove();
      this.notice.dispose();
      this.notice.root.remove();
      this.end = live.render({ model: this.model, el: this.node });
    } catch (error) {
      this.waiting.textContent = this.workbench.trans.__("The views could not be loaded (%1). Reload the page; if that does not help, install moe-workbench again.", String(error));
    }
  }

  private traits(): Record<string, unknown> {
    const { server, preferences } = this.workbench;
    return {
      api: server.api,
      token: server.token,
      run_id: this.run,
      views: this.view === "" ? preferences.views : [this.view],
      rate: preferences.framesPerSecond,
      selection: {},
    };
  }

  private onPreferences(): void {
    const { views, rate } = this.traits();
    if (String(views) !== String(this.model.get("views"))) this.model.set("views", views);
    this.model.set("rate", rate);
  }
}

export function panelId({ run, view }: PanelOptions): string {
  return `moe-workbench-${run}${view && `-${view}`}`;
}
