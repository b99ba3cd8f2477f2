// @ts-check
/** The runs of a server, as it tells them: on every change, over one socket. */
import { hubAddress, hubRequests, hubSocket } from "./_hub.js";
import { createLine } from "./_line.js";

/**
 * @typedef {(path: string, options?: { method?: string, body?: object }) => Promise<{ code: number, body: any }>} Request
 * @typedef {{ request: Request, listen: (onRuns: (runs: any[]) => void, onConnection: (connection: import("./_line.js").Connection) => void) => { close: () => void, retry: () => void } }} Server
 */

/**
 * @param {import("./_model.js").Model} model traits `api`, `token` and `xsrf`
 * @returns {Server | null} null where no server is to be seen
 */
export function serverOf(model) {
  const address = hubAddress(model);
  if (address.api === "") return null;
  const request = hubRequests(address);
  return {
    request,
    listen(onRuns, onConnection) {
      const line = createLine({
        ways: [listTransport(address, request)],
        since: () => 0,
        want: () => ({ topics: [], rate: 1 }),
        closesWhenHidden: true,
        has: () => 0,
        isTraining: () => false,
        onBytes: (text) => onRuns(JSON.parse(text).runs ?? []),
        onChange: () => onConnection(line.connection),
      });
      onConnection(line.connection);
      return { close: line.close, retry: line.retry };
    },
  };
}

/** @param {import("./_hub.js").Address} address @param {Request} request @returns {import("./_hub.js").Transport} */
function listTransport(address, request) {
  return {
    name: "hub",
    connect({ onOpen, onBytes, onEnd }) {
      const socket = hubSocket(address, "runs/stream");
      let hasEnded = false;
      socket.addEventListener("open", () => void (hasEnded || onOpen()));
      socket.addEventListener("message", ({ data }) => void (hasEnded || onBytes(data)));
      socket.addEventListener("close", ({ reason }) => {
        if (!hasEnded) onEnd(reason);
        hasEnded = true;
      });
      const close = () => {
        hasEnded = true;
        socket.close();
      };
      // The list is not asked for anything: it comes.
      return { send: () => {}, close };
    },
    post: () => Promise.reject(new Error("the list of runs takes no commands")),
    async diagnose() {
      const [cause, fix] = ["The server does not answer.", "Check that it still runs; the page keeps trying."];
      const { code, body } = await request("health").catch(() => ({ code: 0, body: {} }));
      if (code === 200) return null;
      if (code === 401 || code === 403) return { cause: "The server does not let this page in.", fix: "Log in again, then reload the page.", isFinal: false };
      return { cause: code === 0 ? cause : (body.reason ?? `The server answered ${code}.`), fix, isFinal: false };
    },
    acks: () => () => {},
  };
}
