/** What the parts of the extension share, and what another extension may ask for. */
import type { TranslationBundle } from "@jupyterlab/translation";
import { Token } from "@lumino/coreutils";
import type { Preferences } from "./preferences";
import type { Runs } from "./runs";
import type { Server } from "./server";

export const NAME = "@moe-workbench/lab";
export const CATEGORY = "MoE Workbench";

export interface IWorkbench {
  readonly server: Server;
  readonly runs: Runs;
  readonly preferences: Preferences;
  readonly trans: TranslationBundle;
}

export const IWorkbench = new Token<IWorkbench>(`${NAME}:IWorkbench`, "The runs of this server, and what the user prefers.");

/** Commands of the extension; other extensions and the schema call them by these names. */
export const Commands = {
  open: "moe-workbench:open",
  runs: "moe-workbench:runs",
  view: "moe-workbench:open-view",
  sidebar: "moe-workbench:show-sidebar",
  start: "moe-workbench:start",
  playPause: "moe-workbench:play-pause",
  stop: "moe-workbench:stop",
} as const;
