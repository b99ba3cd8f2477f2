// @ts-check
/** The way to a run through a hub: a socket for what it says, requests for what it is told. */

/** How often it is looked whether a run that is being started speaks for itself, and one that never did [ms]. */
const [START_WAIT, END_WAIT] = [700, 5000];
/** A try to open the socket that takes longer has failed [ms]. */
const OPEN_LIMIT = 4000;
const ANSWER_LIMIT = 8000;

/**
 * @typedef {{ api: string, token: string, xsrf: string }} Address xsrf: name of the cookie that a page sends back with every change
 * @typedef {{ cause: string, fix: string, isFinal: boolean }} Problem isFinal: trying again cannot help
 * @typedef {{ since: number, onRun: (run: any) => void, onOpen: () => void, onBytes: (bytes: any) => void, onEnd: (reason: string) => void }} Wire
 *   onRun: what the server knows of the run and of this person's role; onEnd: with what the other end said, or ""
 * @typedef {{
 *   name: "hub" | "comm",
 *   connect: (wire: Wire) => { send: (message: object) => void, close: () => void },
 *   post: (command: { id: string, op: string, args: object }) => Promise<import("./_commands.js").Ack>,
 *   diagnose: () => Promise<Problem | null>,
 *   acks: (listener: (records: any[]) => void) => () => void,
 * }} Transport diagnose: why the wire ended, null when the run answers
 */

/** @returns {any} what JupyterLab and Notebook write into their page, {} anywhere else */
function jupyterConfig() {
  const text = document.getElementById("jupyter-config-data")?.textContent;
  if (!text) return {};
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

/** @returns {string} path of the server that serves this page, "" where there is none to be seen */
function basePath() {
  if (!location.protocol.startsWith("http")) return "";
  const { baseUrl } = jupyterConfig();
  if (typeof baseUrl === "string" && baseUrl !== "") return new URL(baseUrl, location.href).pathname;
  const classic = document.body.dataset.baseUrl;
  if (classic) return classic;
  return /^(.*?\/)(?:lab|tree|notebooks|doc|consoles)(?:\/|$)/.exec(location.pathname)?.[1] ?? "";
}

/**
 * Where the hub's routes are.
 * @param {import("./_model.js").Model} model with the traits `api`, `token` and `xsrf`, "" or missing: to be looked for
 * @returns {Address} api is "" where no hub can be
 */
export function hubAddress(model) {
  const read = (/** @type {string} */ name) => model.get(name) || "";
  // Servers of one host share cookies whatever their port, so that each names its own.
  const [api, xsrf] = [read("api"), read("xsrf") || "_xsrf"];
  if (api !== "") return { api, xsrf, token: read("token") };
  const base = basePath();
  const found = base === "" ? "" : `${base.replace(/\/?$/, "/")}workbench/api/v1`;
  return { api: found, xsrf, token: read("token") || (jupyterConfig().token ?? "") };
}

/** @param {string} name @returns {string} */
function cookie(name) {
  const found = document.cookie.split("; ").find((part) => part.startsWith(`${name}=`));
  return found === undefined ? "" : decodeURIComponent(found.slice(name.length + 1));
}

/**
 * Requests to the hub, with the credentials this page has.
 * @param {Address} address
 * @returns {(path: string, options?: { method?: string, body?: object }) => Promise<{ code: number, body: any }>}
 */
export function hubRequests({ api, token, xsrf }) {
  const base = new URL(api.replace(/\/?$/, "/"), location.href);
  return async (path, { method = "GET", body } = {}) => {
    /** @type {Record<string, string>} */
    const headers = { Accept: "application/json" };
    if (token !== "") headers.Authorization = `token ${token}`;
    if (method !== "GET") headers["X-XSRFToken"] = cookie(xsrf);
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const signal = AbortSignal.timeout(ANSWER_LIMIT);
    const text = body === undefined ? undefined : JSON.stringify(body);
    const answer = await fetch(new URL(path, base), { method, headers, body: text, signal, credentials: "same-origin", cache: "no-store" });
    return { code: answer.status, body: await answer.json().catch(() => ({})) };
  };
}

/**
 * @param {Address} address @param {string} path @param {Record<string, string | number>} query
 * @returns {WebSocket}
 */
export function hubSocket({ api, token }, path, query = {}) {
  const address = new URL(path, new URL(api.replace(/\/?$/, "/"), location.href));
  address.protocol = address.protocol.replace("http", "ws");
  for (const [name, value] of Object.entries(query)) address.searchParams.set(name, String(value));
  if (token !== "") address.searchParams.set("token", token);
  const socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  return socket;
}

/**
 * @param {Address} address
 * @param {string} runId
 * @returns {Transport}
 */
export function hubTransport(address, runId) {
  const request = hubRequests(address);
  const run = `runs/${encodeURIComponent(runId)}`;
  return {
    name: "hub",
    connect: (wire) => whenItSpeaks(() => request(run), wire, () => openSocket(hubSocket(address, `${run}/stream`, { since: wire.since }), wire)),
    async post(command) {
      const { code, body } = await request(`${run}/commands`, { method: "POST", body: command });
      if (code === 202) return { status: "accepted", code, ...body };
      if (code >= 500) throw new Error(body.reason ?? `the server answered ${code}`);
      return { ...body, status: "refused", code, reason: body.reason ?? body.message ?? `the server answered ${code}` };
    },
    diagnose: () => request(run).then(({ code, body }) => problemOf(code, body), unreachable),
    acks: () => () => {},
  };
}

/**
 * Asks for the run before its socket is opened: a browser logs every socket that is refused, and a run that the server is
 * starting has none yet.
 * @param {() => Promise<{ code: number, body: any }>} ask @param {Wire} wire @param {() => ReturnType<Transport["connect"]>} open
 * @returns {ReturnType<Transport["connect"]>}
 */
function whenItSpeaks(ask, wire, open) {
  /** @type {ReturnType<Transport["connect"]> | null} */
  let socket = null;
  let [isClosed, timer] = [false, 0];
  const look = async () => {
    const { code, body } = await ask().catch(() => ({ code: 0, body: {} }));
    if (isClosed) return;
    if (code !== 200) return wire.onEnd("");
    wire.onRun(body);
    // Only runs that the server has not heard of yet have a place in its queue.
    const isMute = "queue_place" in body;
    if (isMute) timer = window.setTimeout(look, body.status === "starting" ? START_WAIT : END_WAIT);
    else socket = open();
  };
  void look();
  return {
    send: (message) => socket?.send(message),
    close() {
      isClosed = true;
      clearTimeout(timer);
      socket?.close();
    },
  };
}

/** @param {WebSocket} socket @param {Wire} wire @returns {ReturnType<Transport["connect"]>} */
function openSocket(socket, { onOpen, onBytes, onEnd }) {
  const limit = setTimeout(() => socket.close(), OPEN_LIMIT);
  let hasEnded = false;
  const end = (/** @type {CloseEvent} */ { reason }) => {
    clearTimeout(limit);
    if (!hasEnded) onEnd(reason);
    hasEnded = true;
  };
  socket.addEventListener("open", () => {
    clearTimeout(limit);
    if (!hasEnded) onOpen();
  });
  socket.addEventListener("message", ({ data }) => {
    if (!hasEnded && data instanceof ArrayBuffer) onBytes(data);
  });
  socket.addEventListener("close", end);
  return {
    send: (message) => {
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
    },
    close: () => {
      hasEnded = true;
      clearTimeout(limit);
      socket.close();
    },
  };
}

/** @param {number} code @param {any} body @returns {Problem | null} */
function problemOf(code, body) {
  if (code === 200) return null;
  const said = body.reason ?? body.message ?? "";
  if (code === 404) {
    const fix = "It may have ended with the process that trained it. Start a run, or open another one from the list.";
    return { cause: "The server knows no run of this name.", fix, isFinal: false };
  }
  if (code === 401 || code === 403) {
    return { cause: `The server does not let this page in${said ? `: ${said}` : ""}.`, fix: "Log in again, then reload the page.", isFinal: false };
  }
  return { cause: `The server answered ${code}${said ? `: ${said}` : ""}.`, fix: "Look into the server's log; the page keeps trying.", isFinal: false };
}

/** @returns {Problem} */
function unreachable() {
  return { cause: "The server does not answer.", fix: "Check that it still runs and that this computer is online; the page keeps trying.", isFinal: false };
}
