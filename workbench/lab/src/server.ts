/** The workbench's routes on the Jupyter server of this page, with its base URL, its log-in and its XSRF token. */
import { URLExt } from "@jupyterlab/coreutils";
import { ServerConnection } from "@jupyterlab/services";

/** No answer within this time is an answer too: nothing here waits without an end [ms]. */
const ANSWER_LIMIT = 5000;

export interface Answer {
  code: number;
  body: Record<string, any>;
}

/** Why something is not there, and what to do about it, in the reader's words. */
export interface Problem {
  cause: string;
  fix: string;
  /** Trying again by itself cannot help. */
  isFinal: boolean;
}

export class Server {
  private readonly settings: ServerConnection.ISettings;

  constructor(settings: ServerConnection.ISettings) {
    this.settings = settings;
  }

  /** Where the routes begin, below any base URL such as `/user/ana/`. */
  get api(): string {
    return URLExt.join(this.settings.baseUrl, "workbench", "api", "v1");
  }

  /** What a socket must carry where the page's cookie does not reach the server; "" where it does. */
  get token(): string {
    return this.settings.appendToken ? this.settings.token : "";
  }

  /** One request. `makeRequest` adds the log-in and, where a cookie is the log-in, the XSRF header. */
  async request(path: string, options: { method?: string; body?: object } = {}): Promise<Answer> {
    const { method = "GET", body } = options;
    const init: RequestInit = { method, signal: AbortSignal.timeout(ANSWER_LIMIT) };
    if (body !== undefined) {
      init.body = JSON.stringify(body);
      init.headers = { "Content-Type": "application/json" };
    }
    const answer = await ServerConnection.makeRequest(URLExt.join(this.api, path), init, this.settings);
    return { code: answer.status, body: await answer.json().catch(() => ({})) };
  }

  /** A socket to one of the routes. */
  socket(path: string): WebSocket {
    const url = URLExt.join(this.settings.wsUrl, "workbench", "api", "v1", path);
    const query = this.token === "" ? "" : `?token=${encodeURIComponent(this.token)}`;
    return new this.settings.WebSocket(url + query);
  }

  /** Why the workbench cannot be used here; null when it can. */
  async diagnose(): Promise<Problem | null> {
    try {
      const { code, body } = await this.request("health");
      return code === 200 && body.ok === true ? null : problemOf(code, body);
    } catch {
      return {
        cause: "The Jupyter server does not answer.",
        fix: "Check that it still runs and that this computer is online. This page keeps trying.",
        isFinal: false,
      };
    }
  }
}

/** What an answer that is not a success says about the server. */
function problemOf(code: number, body: Record<string, any>): Problem {
  if (code === 200 || code === 404) {
    return {
      cause: "This Jupyter server has no MoE Workbench.",
      fix: "Its half is the server extension workbench.lab. Run `jupyter server extension enable workbench.lab` where Jupyter runs, then restart Jupyter.",
      isFinal: true,
    };
  }
  const said = body.reason ?? body.message ?? "";
  if (code === 401 || code === 403) {
    return { cause: `The Jupyter server does not let this page in${said && `: ${said}`}.`, fix: "Log in again, then reload the page.", isFinal: true };
  }
  return { cause: `The Jupyter server answered ${code}${said && `: ${said}`}.`, fix: "Its log says more. This page keeps trying.", isFinal: false };
}
