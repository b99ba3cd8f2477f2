/** The page of all runs in the main area: what can be started, with every setting, and what runs or ran. */
import { Widget } from "@lumino/widgets";
import type { Message } from "@lumino/messaging";
import { h } from "moe-views/_dom.js";
import { signIcon } from "./icons";
import { Notice } from "./notice";
import type { IWorkbench } from "./tokens";

export const HOME_ID = "moe-workbench-home";

export class HomePanel extends Widget {
  private readonly workbench: IWorkbench;
  private readonly notice: Notice;
  private readonly openRun: (run: string) => void;
  private page: { show: () => void; close: () => void } | null = null;
  private isOpening = false;

  /** Values of a preset link, by name; empty without one. */
  readonly link: Record<string, string>;

  constructor(workbench: IWorkbench, link: Record<string, string>, openRun: (run: string) => void) {
    super();
    [this.workbench, this.link, this.openRun] = [workbench, link, openRun];
    const { runs, trans } = workbench;
    this.id = HOME_ID;
    this.addClass("moe-lab");
    this.addClass("moe-lab-home");
    this.node.tabIndex = -1;
    this.title.label = trans.__("MoE Workbench");
    this.title.icon = signIcon;
    this.title.closable = true;
    this.notice = new Notice(runs, trans);
    const lead = trans.__("Start a model and watch its experts share the work, or open a run that is there already.");
    this.node.append(h("h2", {}, trans.__("MoE Workbench")), h("p", { class: "moe-lab-about" }, lead), this.notice.root);
    runs.changed.connect(this.onRuns, this);
  }

  dispose(): void {
    if (this.isDisposed) return;
    this.workbench.runs.changed.disconnect(this.onRuns, this);
    this.notice.dispose();
    this.page?.close();
    this.page = null;
    super.dispose();
  }

  protected onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    this.onRuns();
  }

  protected onAfterShow(message: Message): void {
    super.onAfterShow(message);
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
    if (!this.isVisible) return;
    this.notice.update();
    if (this.page !== null) this.page.show();
    else if (this.workbench.runs.isKnown) void this.open();
  }

  private async open(): Promise<void> {
    if (this.isOpening) return;
    this.isOpening = true;
    const { createHomePage } = await import("./home_page");
    if (this.isDisposed) return;
    this.page = createHomePage(this.node, this.workbench, this.link, this.openRun);
    this.page.show();
  }
}
