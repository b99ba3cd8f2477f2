/** One run in a list: where it stands, and the three things that people do most. */
import type { TranslationBundle } from "@jupyterlab/translation";
import { button, h } from "moe-views/_dom.js";
import { icon, setIcon } from "moe-views/_icons.js";
import { number } from "moe-views/_number.js";
import { askOnce, iconButton } from "moe-views/_press.js";
import { statusOf, timeOfDay } from "moe-views/_words.js";
import { nameOf } from "./names";
import { type Ack, isOver, type RunState } from "./runs";

/** How a press is remembered when nothing follows from it [ms]. */
const PENDING_LIMIT = 8000;

export interface RowActions {
  open: (run: RunState) => void;
  command: (run: RunState, op: string) => Promise<Ack>;
}

export class RunRow {
  private readonly trans: TranslationBundle;
  private readonly actions: RowActions;
  private readonly abort = new AbortController();
  private readonly title = button("", { class: "moe-lab-open" });
  private readonly picture = icon("clock");
  private readonly status = h("span", {});
  private readonly badge = h("span", { class: "moe-lab-badge", hidden: true });
  private readonly numbers = h("p", { class: "moe-lab-numbers" });
  private readonly bar = h("i", {});
  private readonly progress = h("div", { class: "moe-lab-progress", role: "progressbar", "aria-valuemin": 0 }, this.bar);
  private readonly play: ReturnType<typeof iconButton>;
  private readonly stop: ReturnType<typeof iconButton>;
  private readonly controls: HTMLElement;
  private readonly error = h("p", { class: "moe-lab-error", hidden: true });
  private readonly life = h("p", { class: "moe-lab-life", role: "status" });
  private run: RunState;
  private pending = { op: "", until: 0 };

  readonly root: HTMLElement;

  constructor(run: RunState, actions: RowActions, trans: TranslationBundle) {
    [this.run, this.actions, this.trans] = [run, actions, trans];
    this.play = iconButton("play", "");
    this.stop = iconButton("stop", trans.__("Stop"));
    this.controls = h("div", { class: "moe-lab-controls" }, this.play.element, this.stop.element);
    const state = h("p", { class: "moe-lab-state" }, this.picture, this.status, this.badge);
    this.root = h("li", { class: "moe-lab-run" }, this.title, state, this.numbers, this.error, this.progress, this.controls, this.life);
    const { signal } = this.abort;
    this.title.addEventListener("click", () => actions.open(this.run), { signal });
    this.play.element.addEventListener("click", () => void this.send(this.run.status === "running" ? "pause" : "resume"), { signal });
    askOnce(this.stop, trans.__("Press again to end it"), () => void this.send("stop"), signal);
  }

  /** Show where the run stands; `staleSince` [ms since the epoch] when that may have changed, 0 when it is so now. */
  show(run: RunState, staleSince: number): void {
    if (run.status !== this.run.status) this.pending.op = "";
    this.run = run;
    const { word, icon: picture, meaning } = statusOf(run.status);
    const [name, trans] = [nameOf(run, run.id), this.trans];
    Object.assign(this.root.dataset, { run: run.id, status: run.status });
    this.root.classList.toggle("moe-lab-stale", staleSince > 0);
    setIcon(this.picture, picture);
    write(this.title, name);
    this.title.title = trans.__("Open %1", name);
    const stale = staleSince > 0 ? ` · ${trans.__("stale, from %1", timeOfDay(staleSince / 1000))}` : "";
    const queue = run.queue_place ? ` · ${trans.__("waits for the %1", run.queue ?? "")}` : "";
    write(this.status, trans.__(word) + queue + stale);
    this.status.title = meaning;
    write(this.error, run.error ?? "");
    this.error.hidden = !run.error;
    write(this.badge, run.badge ?? "");
    this.badge.hidden = !run.badge;
    this.showNumbers();
    this.showControls(name);
  }

  dispose(): void {
    this.abort.abort();
    this.root.remove();
  }

  private showNumbers(): void {
    const { step = 0, target_step: target, loss } = this.run;
    const whole = (value: number): string => Math.round(value).toLocaleString("en-US");
    const steps = target ? this.trans.__("step %1 of %2", whole(step), whole(target)) : this.trans.__("step %1", whole(step));
    write(this.numbers, typeof loss === "number" && Number.isFinite(loss) ? `${steps} · ${this.trans.__("loss %1", number(loss, 4))}` : steps);
    this.progress.hidden = !target || isOver(this.run);
    if (!target) return;
    this.progress.setAttribute("aria-valuemax", String(target));
    this.progress.setAttribute("aria-valuenow", String(Math.min(step, target)));
    this.progress.setAttribute("aria-label", this.trans.__("Steps taken"));
    this.bar.style.transform = `scaleX(${Math.min(1, step / target)})`;
  }

  private showControls(name: string): void {
    const { status, role } = this.run;
    const isRunning = status === "running";
    // A run that is being made ready takes no commands yet.
    this.controls.hidden = isOver(this.run) || status === "starting" || role === "viewer";
    if (Date.now() > this.pending.until) this.pending.op = "";
    const waiting = { pause: this.trans.__("Pausing…"), resume: this.trans.__("Starting…") }[this.pending.op];
    const label = isRunning ? this.trans.__("Pause") : this.trans.__("Resume");
    setIcon(this.play.picture, isRunning ? "pause" : "play");
    write(this.play.words, waiting ?? label);
    this.play.element.setAttribute("aria-label", `${waiting ?? label} ${name}`);
    this.stop.element.title = this.trans.__("End %1; what was recorded stays", name);
  }

  private async send(op: string): Promise<void> {
    this.pending = { op, until: Date.now() + PENDING_LIMIT };
    write(this.life, "");
    this.showControls(nameOf(this.run, this.run.id));
    const { status, reason } = await this.actions.command(this.run, op);
    if (status === "accepted") return;
    this.pending.op = "";
    write(this.life, this.trans.__("Refused: %1", reason));
    this.showControls(nameOf(this.run, this.run.id));
  }
}

/** Changes a text only when it is another one: what stays is not read out again. */
function write(node: HTMLElement, text: string): void {
  if (node.textContent !== text) node.textContent = text;
}
