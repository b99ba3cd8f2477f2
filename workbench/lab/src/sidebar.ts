/** The left sidebar: what runs, its controls, a way to start, and the class for an instructor. */
import { Widget } from "@lumino/widgets";
import type { Message } from "@lumino/messaging";
import { h } from "moe-views/_dom.js";
import { workbenchIcon } from "./icons";
import { Notice } from "./notice";
import { Roster } from "./roster";
import { RunList } from "./run_list";
import { StartForm } from "./start_form";
import type { IWorkbench } from "./tokens";

export interface SidebarActions {
  open: (run: string) => void;
  showAll: () => void;
}

export class Sidebar extends Widget {
  private readonly workbench: IWorkbench;
  private readonly notice: Notice;
  private readonly list: RunList;
  private readonly form: StartForm;
  private readonly roster: Roster;
  private readonly section: HTMLElement;
  private isLoaded = false;

  constructor(workbench: IWorkbench, { open, showAll }: SidebarActions) {
    super();
    const { runs, server, trans, preferences } = workbench;
    this.workbench = workbench;
    this.id = "moe-workbench-sidebar";
    this.addClass("moe-lab");
    this.addClass("moe-lab-sidebar");
    this.title.icon = workbenchIcon;
    this.title.caption = trans.__("MoE Workbench");
    this.node.setAttribute("role", "region");
    this.node.setAttribute("aria-label", trans.__("MoE Workbench"));
    this.notice = new Notice(runs, trans);
    this.list = new RunList(runs, trans, (run) => open(run.id));
    this.form = new StartForm({ server, trans, open, showAll, preferred: () => preferences.preset });
    this.roster = new Roster(server, trans);
    const title = h("h2", {}, trans.__("MoE Workbench"));
    this.section = h("section", { hidden: true }, h("h3", {}, trans.__("Runs")), this.list.root);
    this.node.append(title, this.notice.root, this.section, this.form.root, this.roster.root, this.list.ended);
    runs.changed.connect(this.onRuns, this);
    this.notice.root.hidden = true;
  }

  dispose(): void {
    if (this.isDisposed) return;
    this.workbench.runs.changed.disconnect(this.onRuns, this);
    this.notice.dispose();
    this.list.dispose();
    this.roster.dispose();
    super.dispose();
  }

  protected onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this.watch(true);
  }

  protected onBeforeHide(message: Message): void {
    super.onBeforeHide(message);
    this.watch(false);
  }

  protected onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    if (this.isVisible) this.watch(true);
  }

  /** Nothing is asked for and nothing is drawn while nobody sees it. */
  private watch(isSeen: boolean): void {
    this.list.watch(isSeen);
    this.roster.watch(isSeen);
    if (isSeen) this.onRuns();
  }

  private onRuns(): void {
    const { runs } = this.workbench;
    if (!runs.isKnown) this.isLoaded = false;
    if (!this.isVisible) return;
    this.notice.update();
    this.section.hidden = !runs.isKnown;
    this.list.update();
    if (!runs.isLive || this.isLoaded) return;
    this.isLoaded = true;
    void this.form.load();
    void this.roster.load();
  }
}
