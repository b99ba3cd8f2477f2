/** What an instructor sees of a class: who is how far, in counts alone, and one command for all. */
import type { TranslationBundle } from "@jupyterlab/translation";
import { h, tableElement } from "moe-views/_dom.js";
import { number } from "moe-views/_number.js";
import { askOnce, iconButton } from "moe-views/_press.js";
import { statusOf } from "moe-views/_words.js";
import { isOver } from "./runs";
import type { Server } from "./server";

/** How often the list is asked for while it is open [ms]: counts that change slowly, for one reader. */
const EVERY = 3000;

type Row = Record<string, any>;

export class Roster {
  private readonly server: Server;
  private readonly trans: TranslationBundle;
  private readonly table = h("div", { class: "moe-lab-roster", tabindex: 0, role: "region" });
  private readonly life = h("p", { class: "moe-lab-life", role: "status" });
  private readonly abort = new AbortController();
  private timer = 0;
  private isSeen = false;

  readonly root: HTMLDetailsElement;

  constructor(server: Server, trans: TranslationBundle) {
    [this.server, this.trans] = [server, trans];
    this.table.setAttribute("aria-label", trans.__("Runs of the class"));
    const pause = iconButton("pause", trans.__("Pause all"));
    const resume = iconButton("play", trans.__("Resume all"));
    const stop = iconButton("stop", trans.__("Stop all"));
    const row = h("div", { class: "moe-lab-controls" }, pause.element, resume.element, stop.element);
    this.root = h("details", { class: "moe-lab-class", hidden: true }, h("summary", {}, trans.__("Class")), this.table, row, this.life);
    const { signal } = this.abort;
    askOnce(pause, trans.__("Press again: pause all"), () => void this.tell("pause"), signal);
    askOnce(resume, trans.__("Press again: resume all"), () => void this.tell("resume"), signal);
    askOnce(stop, trans.__("Press again: stop all"), () => void this.tell("stop"), signal);
    this.root.addEventListener("toggle", () => this.look(), { signal });
  }

  /** Show it to an instructor of this server, and to nobody else. */
  async load(): Promise<void> {
    const { code, body } = await this.server.request("health").catch(() => ({ code: 0, body: {} as Row }));
    this.root.hidden = code !== 200 || body.is_instructor !== true;
    this.look();
  }

  watch(isSeen: boolean): void {
    this.isSeen = isSeen;
    this.look();
  }

  dispose(): void {
    clearTimeout(this.timer);
    this.abort.abort();
  }

  /** Ask while it is open and can be seen, and not at all otherwise. */
  private look(): void {
    clearTimeout(this.timer);
    if (this.isSeen && this.root.open && !this.root.hidden && !this.abort.signal.aborted) void this.fetch();
  }

  private async fetch(): Promise<void> {
    const { code, body } = await this.server.request("roster").catch(() => ({ code: 0, body: {} as Row }));
    if (this.abort.signal.aborted) return;
    if (code === 200) this.table.replaceChildren(tableElement(this.tableOf(body.runs ?? [])));
    else this.life.textContent = this.trans.__("The class could not be asked for: %1", body.reason ?? code);
    this.timer = window.setTimeout(() => this.look(), EVERY);
  }

  private tableOf(rows: Row[]): { caption: string; head: string[]; rows: (string | number)[][] } {
    const { trans } = this;
    const head = [trans.__("Who"), trans.__("Status"), trans.__("Step"), trans.__("Loss"), trans.__("Idle")];
    const sorted = [...rows].sort((a, b) => Number(isOver(a)) - Number(isOver(b)) || String(a.owner).localeCompare(String(b.owner)));
    const cells = sorted.map(({ owner, id, status, step, loss, idle_experts: idle }) => [
      owner || id,
      trans.__(statusOf(status).word),
      step ?? "–",
      typeof loss === "number" ? number(loss, 3) : "–",
      idle ?? "–",
    ]);
    return { caption: trans.__("%1 runs: counts, and no texts", rows.length), head, rows: cells };
  }

  private async tell(op: string): Promise<void> {
    const { trans } = this;
    const request = this.server.request("broadcast", { method: "POST", body: { op, args: {} } });
    const { code, body } = await request.catch(() => ({ code: 0, body: {} as Row }));
    const refused: Row[] = body.refused ?? [];
    const reasons = refused.map(({ owner, id, reason }) => `${owner || id}: ${reason}`).join("; ");
    if (code === 200) this.life.textContent = trans.__("%1 accepted, %2 refused", body.accepted, refused.length) + (reasons && ` (${reasons})`);
    else this.life.textContent = trans.__("Refused: %1", body.reason ?? `the server answered ${code}`);
    this.look();
  }
}
