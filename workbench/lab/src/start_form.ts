/** Start a run from one of the server's presets: one choice, one press. Every setting is on the page of all runs. */
import type { TranslationBundle } from "@jupyterlab/translation";
import { button, h, setOptions } from "moe-views/_dom.js";
import { iconButton } from "moe-views/_press.js";
import type { Server } from "./server";

export interface Preset {
  id: string;
  title: string;
  description: string;
  options: Record<string, any>;
}

/** A run that was started: its id, or why there is none. */
export type Started = { id: string; reason: string };

/** Ask the server to start a run. */
export async function start(server: Server, preset: string, options: object): Promise<Started> {
  try {
    const { code, body } = await server.request("runs", { method: "POST", body: { preset, options } });
    if (code === 201) return { id: String(body.id), reason: "" };
    return { id: "", reason: body.reason ?? body.message ?? `the server answered ${code}` };
  } catch {
    return { id: "", reason: "the server did not answer" };
  }
}

/** The presets of the server; none where it starts no runs, or does not answer. */
export async function presetsOf(server: Server): Promise<Preset[]> {
  try {
    const { code, body } = await server.request("presets");
    return code === 200 && Array.isArray(body.presets) ? body.presets : [];
  } catch {
    return [];
  }
}

export interface StartOptions {
  server: Server;
  trans: TranslationBundle;
  preferred: () => string;
  open: (run: string) => void;
  showAll: () => void;
}

export class StartForm {
  private readonly options: StartOptions;
  private readonly choice = h("select", { class: "moe-select" });
  private readonly about = h("p", { class: "moe-lab-about" });
  private readonly go: ReturnType<typeof iconButton>;
  private readonly life = h("p", { class: "moe-lab-life", role: "status" });
  private presets: Preset[] = [];

  readonly root: HTMLElement;

  constructor(options: StartOptions) {
    this.options = options;
    const { trans } = options;
    this.go = iconButton("play", trans.__("Start"), { class: "moe-button moe-main" });
    const more = button(trans.__("All settings"), { title: trans.__("Every setting, and links that carry them") });
    this.choice.setAttribute("aria-label", trans.__("What to start"));
    const row = h("div", { class: "moe-lab-controls" }, this.go.element, more);
    this.root = h("section", { class: "moe-lab-start", hidden: true }, h("h3", {}, trans.__("Start a run")), this.choice, this.about, row, this.life);
    this.choice.addEventListener("change", () => this.describe());
    this.go.element.addEventListener("click", () => void this.start());
    more.addEventListener("click", options.showAll);
  }

  /** Ask the server what can be started; without presets the form stays away. */
  async load(): Promise<void> {
    this.presets = await presetsOf(this.options.server);
    this.root.hidden = this.presets.length === 0;
    setOptions(this.choice, this.presets.map(({ id, title }) => [id, title]));
    const preferred = this.options.preferred();
    if (this.presets.some(({ id }) => id === preferred)) this.choice.value = preferred;
    this.describe();
  }

  private describe(): void {
    this.about.textContent = this.presets.find(({ id }) => id === this.choice.value)?.description ?? "";
  }

  private async start(): Promise<void> {
    const { trans, server, open } = this.options;
    this.go.element.disabled = true;
    this.go.words.textContent = trans.__("Starting…");
    this.life.textContent = "";
    const { id, reason } = await start(server, this.choice.value, {});
    this.go.element.disabled = false;
    this.go.words.textContent = trans.__("Start");
    this.life.textContent = reason && trans.__("Not started: %1", reason);
    if (id !== "") open(id);
  }
}
