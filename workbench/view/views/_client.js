// @ts-check
/**
 * One stream per page and run: everything on the page that shows a run shares a socket, and nothing is sent to what
 * nobody sees. After a drop it goes on where it stopped.
 */
import { commTransport, hasComm } from "./_comm.js";
import { createCommands } from "./_commands.js";
import { splitFrames } from "./_frames.js";
import { hubAddress, hubTransport } from "./_hub.js";
import { createLine } from "./_line.js";
import { createTopics } from "./_topics.js";

const KEPT_STATS = 1000;
const ALWAYS = ["state", "commands"];

/**
 * @typedef {{ topics: string[], rate: number }} Want rate: frames per second, 0 while it is not seen
 * @typedef {{ onTopics: (changed: Set<string>) => void, onRecords: () => void, onConnection: () => void, want: Want }} Viewer
 * @typedef {{
 *   topics: import("./_topics.js").Topics,
 *   commands: import("./_commands.js").Commands,
 *   connection: import("./_line.js").Connection,
 *   join: (viewer: Viewer) => { update: (want: Want) => void, leave: () => void },
 *   retry: () => void,
 * }} Client
 * @typedef {{ seq: number, produced: number, received: number }} Times [ms since the epoch]
 */

/** @returns {{ stats: any[], clients: Map<string, Client> }} what all live views of this page share */
function shared() {
  const page = /** @type {any} */ (globalThis);
  page.__moe ??= { stats: [], clients: new Map() };
  return page.__moe;
}

/**
 * @param {import("./_model.js").Model} model traits `api`, `token`, `xsrf`, `run_id`, and those of `_comm.js`
 * @returns {Client | null} null where no run can be reached from this page: no hub, and no frames of the host
 */
export function clientOf(model) {
  const address = hubAddress(model);
  const runId = model.get("run_id") ?? "";
  const ways = [];
  if (address.api !== "" && runId !== "") ways.push(hubTransport(address, runId));
  if (hasComm(model)) ways.push(commTransport(model));
  if (ways.length === 0) return null;
  if (ways[0].name === "comm") return createClient(ways, () => {});
  const { clients } = shared();
  const key = `${address.api} ${runId}`;
  const client = clients.get(key) ?? createClient(ways, () => void clients.delete(key));
  clients.set(key, client);
  return client;
}

/** @param {import("./_hub.js").Transport[]} ways @param {() => void} onClosed @returns {Client} */
function createClient(ways, onClosed) {
  const topics = createTopics();
  /** @type {Set<Viewer>} */
  const viewers = new Set();
  const tell = (/** @type {(viewer: Viewer) => void} */ say) => [...viewers].forEach(say);
  const display = createDisplay((changed) => tell((viewer) => viewer.onTopics(changed)));
  const line = createLine({
    ways,
    since: () => topics.newest().seq,
    want: () => wanted(viewers),
    has: topics.seq,
    isTraining: () => topics.get("state")?.status === "running",
    onRun(run) {
      if (topics.offer("state", run)) tell((viewer) => viewer.onTopics(new Set(["state"])));
    },
    onWay: () => commands.again(),
    onBytes(bytes) {
      const frames = splitFrames(bytes);
      const changed = topics.take(frames);
      if (changed.has("commands")) commands.merge(topics.get("commands"));
      display.add(frames.filter(({ topic }) => changed.has(topic)));
    },
    onChange: () => tell((viewer) => viewer.onConnection()),
  });
  const commands = createCommands((command) => line.transport().post(command), () => tell((viewer) => viewer.onRecords()));
  const endAcks = ways.map((way) => way.acks(commands.merge));
  const close = () => {
    line.close();
    display.close();
    endAcks.forEach((end) => end());
    onClosed();
  };
  return { topics, commands, connection: line.connection, join: joiner(viewers, line.refresh, close), retry: line.retry };
}

/** @param {Set<Viewer>} viewers @param {() => void} refresh @param {() => void} close when the last one leaves @returns {Client["join"]} */
function joiner(viewers, refresh, close) {
  return (viewer) => {
    viewers.add(viewer);
    refresh();
    return {
      update(want) {
        viewer.want = want;
        refresh();
      },
      leave() {
        viewers.delete(viewer);
        if (viewers.size === 0) close();
        else refresh();
      },
    };
  };
}

/**
 * Shows what has arrived, once for all messages that are waiting: only the newest is drawn.
 * @param {(changed: Set<string>) => void} show
 */
function createDisplay(show) {
  /** @type {Map<string, Times>} */
  let fresh = new Map();
  let timer = 0;
  const flush = () => {
    const shown = fresh;
    [timer, fresh] = [0, new Map()];
    show(new Set(shown.keys()));
    requestAnimationFrame(() => note(shown));
  };
  return {
    /** @param {import("./_frames.js").Frame[]} frames */
    add(frames) {
      for (const { topic, seq, time } of frames) fresh.set(topic, { seq, produced: time * 1000, received: Date.now() });
      if (timer === 0 && fresh.size > 0) timer = window.setTimeout(flush, 0);
    },
    close: () => clearTimeout(timer),
  };
}

/** @param {Map<string, Times>} shown what has just been drawn, kept for measurements */
function note(shown) {
  const { stats } = shared();
  for (const [topic, times] of shown) stats.push({ topic, ...times, drawn: performance.timeOrigin + performance.now() });
  stats.splice(0, Math.max(0, stats.length - KEPT_STATS));
}

/** @param {Set<Viewer>} viewers @returns {Want} what all of them need together */
function wanted(viewers) {
  const seen = document.hidden ? [] : [...viewers].filter(({ want }) => want.rate > 0);
  const topics = new Set([...ALWAYS, ...seen.flatMap(({ want }) => want.topics)]);
  return { topics: [...topics], rate: Math.max(0, ...seen.map(({ want }) => want.rate)) };
}
