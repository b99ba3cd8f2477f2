/** The runs of this server, told by one socket: what the sidebar, the status bar and the panels know. */
import type { IDisposable } from "@lumino/disposable";
import { type ISignal, Signal } from "@lumino/signaling";
import type { Problem, Server } from "./server";

/** Waits before the tries to connect again [ms]. */
const DELAYS = [500, 1000, 2000, 4000, 8000];
/** A try to open the socket that takes longer has failed [ms]. */
const OPEN_LIMIT = 4000;
/** A run that trains and says nothing for so long is shown as stale [ms]. */
const STALE_AFTER = 10000;
/** A socket that says nothing for so long while a run trains may be dead: a computer that slept does not notice [ms]. */
const DEAD_AFTER = 20000;
const OVER = ["finished", "stopped", "crashed", "lost"];

/** The part of a run's state that the extension reads; the views read the rest. */
export interface RunState {
  id: string;
  title: string;
  owner: string;
  status: string;
  /** Missing until the run has spoken for itself. */
  step?: number;
  target_step: number | null;
  loss: number | null;
  tokens_per_second: number | null;
  started_at: number;
  driver: string | null;
  error: string | null;
  /** What this person may do: `owner`, `driver` or `viewer`. */
  role?: string;
  /** What is not measured says so, in a word. */
  badge?: string;
  /** Its place in a queue, 0 when it waits for nothing, and what the queue is for. */
  queue_place?: number;
  queue?: string | null;
}

export interface Ack {
  status: "accepted" | "refused";
  reason: string;
}

export function isOver(run: { status?: string }): boolean {
  return OVER.includes(run.status ?? "");
}

export class Runs implements IDisposable {
  private readonly server: Server;
  private readonly changes = new Signal<this, void>(this);
  private readonly heard = new Map<string, { at: number; text: string }>();
  private states: RunState[] = [];
  private socket: WebSocket | null = null;
  private timer = 0;
  private watchdog = 0;
  private tries = 0;
  private isStarted = false;

  /** Whether the list is what the server has now. */
  isLive = false;
  /** Whether the server has told its runs at least once. */
  isKnown = false;
  problem: Problem | null = null;
  isDisposed = false;

  constructor(server: Server) {
    this.server = server;
  }

  /** Something above has changed. */
  get changed(): ISignal<this, void> {
    return this.changes;
  }

  /** Runs that go on before those that are over, the newest first. */
  get list(): readonly RunState[] {
    return this.states;
  }

  /** The run that a person most likely means: the newest that goes on. */
  get active(): RunState | null {
    const alive = this.states.filter((run) => !isOver(run));
    return alive.find(({ status }) => status === "running") ?? alive[0] ?? null;
  }

  find(id: string): RunState | null {
    return this.states.find((run) => run.id === id) ?? null;
  }

  /** True if what is shown of a run may not be what happens now. */
  isStale(run: RunState): boolean {
    if (!this.isLive) return !isOver(run);
    return run.status === "running" && Date.now() - (this.heard.get(run.id)?.at ?? 0) > STALE_AFTER;
  }

  /** When a run was last heard of [ms since the epoch], 0 for never. */
  heardAt(run: RunState): number {
    return this.heard.get(run.id)?.at ?? 0;
  }

  /** Connect, and stay connected while the page can be seen. */
  start(): void {
    if (this.isStarted) return;
    this.isStarted = true;
    document.addEventListener("visibilitychange", this.onSight);
    window.addEventListener("online", this.onSight);
    void this.connect();
  }

  /** Try now, whatever the last answer was. */
  retry(): void {
    this.tries = 0;
    if (this.socket === null && this.isStarted) void this.connect();
  }

  /** Tell a run something; what the server answered. */
  async command(run: RunState, op: string, args: object = {}): Promise<Ack> {
    const id = Array.from(crypto.getRandomValues(new Uint32Array(4)), (word) => word.toString(16).padStart(8, "0")).join("");
    try {
      const { code, body } = await this.server.request(`runs/${run.id}/commands`, { method: "POST", body: { id, op, args } });
      if (code === 202) return { status: "accepted", reason: "" };
      return { status: "refused", reason: body.reason ?? body.message ?? `the server answered ${code}` };
    } catch {
      return { status: "refused", reason: "the server did not answer" };
    }
  }

  dispose(): void {
    if (this.isDisposed) return;
    this.isDisposed = true;
    document.removeEventListener("visibilitychange", this.onSight);
    window.removeEventListener("online", this.onSight);
    this.close();
    Signal.clearData(this);
  }

  private readonly onSight = (): void => {
    if (!document.hidden) this.retry();
    // A page that nobody sees costs the server nothing.
    else if (this.isLive) this.close();
  };

  private close(): void {
    clearTimeout(this.timer);
    clearTimeout(this.watchdog);
    const socket = this.socket;
    this.socket = null;
    this.isLive = false;
    socket?.close();
  }

  private reopen(): void {
    this.close();
    void this.connect();
  }

  private async connect(): Promise<void> {
    clearTimeout(this.timer);
    const socket = await this.open();
    if (socket === null) return this.wait();
    socket.addEventListener("message", ({ data }) => this.hear(data));
    socket.addEventListener("close", () => {
      if (this.socket !== socket) return;
      this.close();
      this.changes.emit();
      this.wait();
    });
  }

  /** An open socket, or null and the reason in `problem`. Asking first keeps a missing route out of the console. */
  private async open(): Promise<WebSocket | null> {
    const problem = this.isKnown && this.tries === 0 ? null : await this.server.diagnose();
    if (this.isDisposed || this.socket !== null) return null;
    this.problem = problem;
    if (problem !== null) return null;
    const socket = this.server.socket("runs/stream");
    this.socket = socket;
    const isOpen = await new Promise<boolean>((resolve) => {
      socket.addEventListener("open", () => resolve(true));
      socket.addEventListener("close", () => resolve(false));
      setTimeout(() => resolve(false), OPEN_LIMIT);
    });
    if (isOpen && this.socket === socket) return socket;
    socket.close();
    if (this.socket === socket) this.socket = null;
    this.problem = { cause: "The Jupyter server refuses the socket.", fix: "A proxy between may not pass WebSockets. This page keeps trying.", isFinal: false };
    return null;
  }

  private wait(): void {
    if (this.isDisposed || this.socket !== null) return;
    this.changes.emit();
    if (document.hidden || this.problem?.isFinal === true) return;
    const delay = DELAYS[Math.min(this.tries, DELAYS.length - 1)] * (0.8 + 0.2 * Math.random());
    this.tries += 1;
    this.timer = window.setTimeout(() => void this.connect(), delay);
  }

  private hear(data: unknown): void {
    const { runs } = JSON.parse(String(data)) as { runs: RunState[] };
    const now = Date.now();
    for (const run of runs) {
      const text = `${run.status} ${run.step}`;
      if (this.heard.get(run.id)?.text !== text) this.heard.set(run.id, { at: now, text });
    }
    this.states = [...runs].sort((a, b) => Number(isOver(a)) - Number(isOver(b)) || b.started_at - a.started_at);
    [this.isLive, this.isKnown, this.problem, this.tries] = [true, true, null, 0];
    clearTimeout(this.watchdog);
    if (this.active?.status === "running") this.watchdog = window.setTimeout(() => this.reopen(), DEAD_AFTER);
    this.changes.emit();
  }
}
