// @ts-check
/** A connection that comes back by itself: tries again, asks why it failed, and notices when it is dead. */

/** Waits before the tries to connect again [s]; a young drop is retried more often, so that a short one is short here too. */
const DELAYS = [0.5, 1, 2, 4, 8];
const YOUNG_DROP = { seconds: 15, longest: 1.5 };
/** A run that trains and says nothing for so long is asked again [ms]; five times its usual silence, if that is longer. */
const LONGEST_SILENCE = 15000;
/** Waits of a host with frames of its own before it looks for a hub [s]: the hub may know the run a little later than the kernel. */
const LOOKS = [0, 0.7, 1.5, 5];

/**
 * @typedef {import("./_hub.js").Problem} Problem
 * @typedef {import("./_hub.js").Transport} Transport
 * @typedef {{ phase: "connecting" | "live" | "waiting", way: "hub" | "comm", role: string, opened: number, retryAt: number, problem: Problem | null }} Connection
 *   role: what this person may do: owner, driver or viewer; opened: when it was last opened, 0 for never; retryAt: [ms since the epoch]
 * @typedef {{
 *   ways: Transport[],
 *   since: () => number,
 *   want: () => { topics: string[], rate: number },
 *   has: (topic: string) => number,
 *   isTraining: () => boolean,
 *   closesWhenHidden?: boolean,
 *   onRun?: (run: any) => void,
 *   onWay?: () => void,
 *   onBytes: (bytes: any) => void,
 *   onChange: () => void,
 * }} Options ways: the best first; has: number of the newest frame of a topic; isTraining: frames are to be expected; onWay: the best way is open now, what waits on another may go
 *   this one; onBytes: throws what cannot be read;
 *   closesWhenHidden: for what cannot be asked to send nothing
 * @typedef {{
 *   connection: Connection,
 *   transport: () => Transport,
 *   refresh: () => void,
 *   retry: () => void,
 *   close: () => void,
 * }} Line refresh: tell the other end what is wanted now
 * @typedef {{
 *   options: Options, connection: Connection, way: Transport, wire: ReturnType<Transport["connect"]> | null,
 *   abort: AbortController, said: { rate: string, topics: string }, tries: number, droppedAt: number, timer: number, watch: ReturnType<typeof createWatchdog>,
 * }} State
 */

/** @param {Options} options @returns {Line} */
export function createLine(options) {
  const abort = new AbortController();
  const [first] = options.ways;
  /** @type {Connection} */
  const connection = { phase: "connecting", way: first.name, role: "owner", opened: 0, retryAt: 0, problem: null };
  /** @type {State} */
  const state = {
    options, connection, way: first, wire: null, abort, said: { rate: "", topics: "" }, tries: 0, droppedAt: 0, timer: 0,
    watch: createWatchdog(options.isTraining, () => {
      state.wire?.close();
      void lost(state, true, "");
    }),
  };
  const retry = () => {
    if (connection.phase === "waiting" && connection.problem?.isFinal !== true) connect(state);
  };
  const onSight = () => {
    refresh(state);
    if (!document.hidden) retry();
    else if (options.closesWhenHidden) rest(state);
  };
  document.addEventListener("visibilitychange", onSight, { signal: abort.signal });
  window.addEventListener("online", retry, { signal: abort.signal });
  void begin(state);
  return { connection, transport: () => state.way, refresh: () => refresh(state), retry, close: () => close(state) };
}

/** @param {State} state takes the first way that knows the run, and looks again for a better one */
async function begin(state) {
  const [best, other] = state.options.ways;
  // Not before whoever made the line holds it.
  await null;
  if (state.abort.signal.aborted) return;
  if (other === undefined) return connect(state);
  for (const seconds of LOOKS) {
    await new Promise((done) => setTimeout(done, seconds * 1000));
    const isKnown = !state.abort.signal.aborted && (await best.diagnose()) === null;
    if (state.abort.signal.aborted) return;
    if (!isKnown && state.wire !== null) continue;
    state.wire?.close();
    state.way = isKnown ? best : other;
    connect(state);
    if (!isKnown) continue;
    state.options.onWay?.();
    return;
  }
}

/** @param {State} state */
function connect(state) {
  clearTimeout(state.timer);
  const { options, connection } = state;
  connection.phase = "connecting";
  options.onChange();
  state.wire = state.way.connect({
    since: options.since(),
    onRun(run) {
      connection.role = run.role ?? "owner";
      options.onRun?.(run);
    },
    onOpen() {
      Object.assign(connection, { phase: "live", way: state.way.name, opened: Date.now(), problem: null });
      state.said = { rate: "", topics: "" };
      refresh(state);
      options.onChange();
    },
    onBytes: (bytes) => receive(state, bytes),
    onEnd: (reason) => void lost(state, connection.phase === "live", reason),
  });
}

/** @param {State} state */
function refresh(state) {
  const { rate, topics } = state.options.want();
  state.watch.expect(state.wire !== null && rate > 0);
  if (state.wire === null || state.connection.phase !== "live") return;
  const [said, names] = [`${rate}`, topics.join()];
  const hasOthers = names !== state.said.topics;
  if (said === state.said.rate && !hasOthers) return;
  state.said = { rate: said, topics: names };
  // A topic that was not asked for has a gap: the other end must know what is here of each.
  const table = Object.fromEntries(topics.map((topic) => [topic, state.options.has(topic)]));
  state.wire.send({ rate, ...(hasOthers ? { topics: table } : {}) });
}

/** @param {State} state @param {any} bytes */
function receive(state, bytes) {
  [state.tries, state.droppedAt] = [0, 0];
  state.watch.heard();
  try {
    state.options.onBytes(bytes);
  } catch (error) {
    const cause = `This page cannot read what the run sends: ${error instanceof Error ? error.message : error}.`;
    Object.assign(state.connection, { phase: "waiting", problem: { cause, fix: "Reload the page; it may be older than the server.", isFinal: true } });
    state.wire?.close();
    state.wire = null;
    state.options.onChange();
  }
}

/** @param {State} state @param {boolean} wasOpen @param {string} reason that the other end gave, or "" */
async function lost(state, wasOpen, reason) {
  const { connection, options } = state;
  state.wire = null;
  state.watch.expect(false);
  if (state.droppedAt === 0) state.droppedAt = Date.now();
  const delay = delayOf(state.tries, state.droppedAt);
  state.tries += 1;
  Object.assign(connection, { phase: "waiting", retryAt: Date.now() + delay });
  state.timer = window.setTimeout(() => connect(state), delay);
  if (reason !== "") connection.problem = { cause: `The server ended the connection: ${reason}.`, fix: "The page keeps trying.", isFinal: false };
  options.onChange();
  if (wasOpen) return;
  const problem = await state.way.diagnose();
  if (state.abort.signal.aborted || connection.phase === "live") return;
  connection.problem = problem ?? { cause: "The server refuses the socket.", fix: "A proxy between may not pass WebSockets; the page keeps trying.", isFinal: false };
  options.onChange();
}

/** @param {State} state until the page is seen again */
function rest(state) {
  clearTimeout(state.timer);
  state.wire?.close();
  state.wire = null;
  state.connection.phase = "waiting";
}

/** @param {State} state */
function close(state) {
  state.abort.abort();
  clearTimeout(state.timer);
  state.watch.expect(false);
  state.wire?.close();
  state.wire = null;
}

/** @param {number} tries so far @param {number} droppedAt [ms since the epoch] @returns {number} [ms], with a jitter that keeps sixty pages apart */
function delayOf(tries, droppedAt) {
  const isYoung = Date.now() - droppedAt < YOUNG_DROP.seconds * 1000;
  const seconds = DELAYS[Math.min(tries, DELAYS.length - 1)];
  return (isYoung ? Math.min(seconds, YOUNG_DROP.longest) : seconds) * 1000 * (0.8 + 0.2 * Math.random());
}

/** @param {() => boolean} isTraining @param {() => void} onSilence */
function createWatchdog(isTraining, onSilence) {
  let [timer, last, usual] = [0, 0, 0];
  let isOn = false;
  const ring = () => (isTraining() ? onSilence() : wind());
  const wind = () => {
    clearTimeout(timer);
    if (isOn) timer = window.setTimeout(ring, Math.max(LONGEST_SILENCE, usual * 5));
  };
  return {
    heard() {
      const now = Date.now();
      if (last > 0) usual = Math.max(now - last, usual * 0.9);
      last = now;
      wind();
    },
    /** @param {boolean} isExpected */
    expect(isExpected) {
      if (isExpected === isOn) return;
      isOn = isExpected;
      last = 0;
      wind();
    },
  };
}
