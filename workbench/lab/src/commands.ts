/** What can be done with runs, as commands of JupyterLab: for menus, keys, the palette and other extensions. */
import type { JupyterFrontEnd } from "@jupyterlab/application";
import type { Widget } from "@lumino/widgets";
import { Dialog, showDialog, showErrorMessage } from "@jupyterlab/apputils";
import { signIcon, workbenchIcon } from "./icons";
import { nameOf, wordsOf } from "./names";
import type { RunState } from "./runs";
import { start } from "./start_form";
import { Commands, type IWorkbench } from "./tokens";

export interface Places {
  /** Open a run, with one view alone when it is named. */
  openRun: (run: string, view: string) => Widget;
  /** Open the page of all runs, with the settings of a preset link filled in. */
  openHome: (link: Record<string, string>) => Widget;
}

type Arguments = Record<string, any>;

const RUN = { run: { type: "string", description: "Id of a run; the active one when empty." } };

/** Register every command; the entries that the palette shows. */
export function addCommands(app: JupyterFrontEnd, workbench: IWorkbench, places: Places): { command: string; args?: Arguments }[] {
  addPlaces(app, workbench, places);
  addControls(app, workbench, places);
  const views = VIEW_NAMES.map((view) => ({ command: Commands.view, args: { view } }));
  const plain = [Commands.open, Commands.runs, Commands.playPause, Commands.stop, Commands.sidebar];
  return [...plain.map((command) => ({ command })), ...views];
}

/** A JSON schema of arguments, as JupyterLab shows it to people and agents that look for commands. */
function describedBy(properties: object): { args: any } {
  return { args: { type: "object", properties } };
}

function addPlaces({ commands }: JupyterFrontEnd, { runs, trans }: IWorkbench, { openRun, openHome }: Places): void {
  commands.addCommand(Commands.open, {
    label: (args) => (args.isLauncher === true ? trans.__("MoE Workbench") : trans.__("Open MoE Workbench")),
    caption: trans.__("The live views of the active run, or everything that can be started"),
    icon: (args) => (args.isLauncher === true ? signIcon : workbenchIcon),
    describedBy: describedBy({ ...RUN, view: { type: "string", description: "One view alone, by name." } }),
    execute: ({ run, view }) => {
      const id = String(run ?? runs.active?.id ?? "");
      // The launcher gives its place to what a command returns.
      return id === "" ? openHome({}) : openRun(id, String(view ?? ""));
    },
  });
  commands.addCommand(Commands.runs, {
    label: trans.__("Show All MoE Runs, and Start a New One"),
    icon: workbenchIcon,
    describedBy: describedBy({ link: { type: "object", description: "Settings of a preset link, by name." } }),
    execute: ({ link }) => openHome((link ?? {}) as Record<string, string>),
  });
  commands.addCommand(Commands.view, {
    label: ({ view }) => (view ? trans.__("Open MoE View: %1", wordsOf(String(view))) : trans.__("Open a View of the Active MoE Run")),
    describedBy: describedBy({ ...RUN, view: { type: "string" } }),
    isEnabled: ({ run }) => Boolean(run) || runs.active !== null,
    execute: ({ run, view }) => openRun(String(run ?? runs.active?.id ?? ""), String(view ?? "")),
  });
}

function addControls({ commands }: JupyterFrontEnd, { runs, server, trans }: IWorkbench, { openRun }: Places): void {
  const chosen = ({ run }: Arguments): RunState | null => (run ? runs.find(String(run)) : runs.active);
  const tell = async (run: RunState | null, op: string): Promise<void> => {
    if (run === null) return;
    const { status, reason } = await runs.command(run, op);
    if (status === "refused") await showErrorMessage(trans.__("%1 was refused", wordsOf(op)), `${nameOf(run, run.id)}: ${reason}`);
  };
  const isSure = async (run: RunState): Promise<boolean> => {
    const buttons = [Dialog.cancelButton(), Dialog.warnButton({ label: trans.__("Stop") })];
    const body = trans.__("It cannot go on afterwards. What was recorded stays.");
    return (await showDialog({ title: trans.__("Stop %1?", nameOf(run, run.id)), body, buttons })).button.accept;
  };
  commands.addCommand(Commands.playPause, {
    label: trans.__("Pause or Resume the Active MoE Run"),
    describedBy: describedBy(RUN),
    isEnabled: (args) => chosen(args) !== null,
    execute: (args) => tell(chosen(args), chosen(args)?.status === "running" ? "pause" : "resume"),
  });
  commands.addCommand(Commands.stop, {
    label: trans.__("Stop the Active MoE Run"),
    describedBy: describedBy(RUN),
    isEnabled: (args) => chosen(args) !== null,
    execute: async (args) => {
      const run = chosen(args);
      if (run !== null && (args.isSure === true || (await isSure(run)))) await tell(run, "stop");
    },
  });
  commands.addCommand(Commands.start, {
    label: trans.__("Start an MoE Run"),
    describedBy: describedBy({ preset: { type: "string" }, options: { type: "object" } }),
    execute: async ({ preset, options }) => {
      const { id, reason } = await start(server, String(preset ?? ""), (options ?? {}) as object);
      if (id === "") await showErrorMessage(trans.__("The run was not started"), reason);
      else openRun(id, "");
    },
  });
}
