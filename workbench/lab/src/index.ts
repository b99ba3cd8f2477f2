/** The plugins of the extension. Each can be disabled by itself; what an application lacks is left out. */
import { ILabShell, ILayoutRestorer, IRouter, type JupyterFrontEnd, type JupyterFrontEndPlugin } from "@jupyterlab/application";
import { ICommandPalette, WidgetTracker } from "@jupyterlab/apputils";
import { ILauncher } from "@jupyterlab/launcher";
import { ISettingRegistry } from "@jupyterlab/settingregistry";
import { IStatusBar } from "@jupyterlab/statusbar";
import { ITranslator, nullTranslator } from "@jupyterlab/translation";
import { addCommands, type Places } from "./commands";
import { HOME_ID, HomePanel } from "./home";
import { panelId, RunPanel } from "./panel";
import { Preferences } from "./preferences";
import { Runs } from "./runs";
import { Server } from "./server";
import { Sidebar } from "./sidebar";
import { StatusItem } from "./status";
import { CATEGORY, Commands, IWorkbench, NAME } from "./tokens";

/** Language packs name the extension by this. */
const DOMAIN = "moe_workbench";

const core: JupyterFrontEndPlugin<IWorkbench> = {
  id: `${NAME}:plugin`,
  description: "The runs of MoE Workbench on this server, and the user's settings.",
  autoStart: true,
  provides: IWorkbench,
  optional: [ITranslator, ISettingRegistry],
  activate(app: JupyterFrontEnd, translator: ITranslator | null, registry: ISettingRegistry | null): IWorkbench {
    const server = new Server(app.serviceManager.serverSettings);
    const workbench = { server, runs: new Runs(server), preferences: new Preferences(), trans: (translator ?? nullTranslator).load(DOMAIN) };
    registry?.load(core.id).then(
      (settings) => workbench.preferences.follow(settings),
      (error) => console.warn(`MoE Workbench goes on with its default settings: ${error}`),
    );
    // The application comes first: the runs are asked for once it stands.
    void app.restored.then(() => workbench.runs.start());
    return workbench;
  },
};

const panels: JupyterFrontEndPlugin<void> = {
  id: `${NAME}:panels`,
  description: "Live views in the main area, their commands, and the launcher's tile.",
  autoStart: true,
  requires: [IWorkbench],
  optional: [ILabShell, ILayoutRestorer, ICommandPalette, ILauncher, IRouter],
  activate(
    app: JupyterFrontEnd,
    workbench: IWorkbench,
    lab: ILabShell | null,
    restorer: ILayoutRestorer | null,
    palette: ICommandPalette | null,
    launcher: ILauncher | null,
    router: IRouter | null,
  ): void {
    const tracker = new WidgetTracker<RunPanel | HomePanel>({ namespace: "moe-workbench" });
    const places = placesOf(app, workbench, lab, tracker);
    for (const entry of addCommands(app, workbench, places)) palette?.addItem({ ...entry, category: CATEGORY });
    launcher?.add({ command: Commands.open, args: { isLauncher: true }, category: "Notebook", rank: 10 });
    void restorer?.restore(tracker, {
      command: Commands.open,
      args: (panel) => (panel instanceof RunPanel ? { run: panel.run, view: panel.view } : { run: "" }),
      name: (panel) => panel.id,
    });
    // A preset link opens its settings, ready to start; it starts nothing by itself.
    const link = Object.fromEntries(new URLSearchParams(router?.current.search ?? ""));
    if (link.preset) void app.restored.then(() => places.openHome(link));
  },
};

/** Where panels go: tabs of JupyterLab; beside the document in Notebook, which has one main widget. */
function placesOf(app: JupyterFrontEnd, workbench: IWorkbench, lab: ILabShell | null, tracker: WidgetTracker<RunPanel | HomePanel>): Places {
  const show = (id: string, create: () => RunPanel | HomePanel): RunPanel | HomePanel => {
    const known = tracker.find((panel) => panel.id === id && !panel.isDisposed);
    const panel = known ?? create();
    if (!panel.isAttached) {
      app.shell.add(panel, lab === null ? "right" : "main", { type: "MoE Workbench" });
      void tracker.add(panel);
    }
    app.shell.activateById(id);
    return panel;
  };
  const openRun = (run: string, view: string): RunPanel | HomePanel => show(panelId({ run, view }), () => new RunPanel(workbench, { run, view }));
  const openHome = (link: Record<string, string>): RunPanel | HomePanel => {
    const old = tracker.find((panel) => panel.id === HOME_ID);
    // Another link brings other settings: they need a page of their own.
    if (old !== undefined && Object.keys(link).length > 0) old.dispose();
    return show(HOME_ID, () => new HomePanel(workbench, link, (run) => void openRun(run, "")));
  };
  return { openRun, openHome };
}

const sidebar: JupyterFrontEndPlugin<void> = {
  id: `${NAME}:sidebar`,
  description: "Runs, their controls and a way to start one, in the left sidebar.",
  autoStart: true,
  requires: [IWorkbench],
  optional: [ILayoutRestorer],
  activate(app: JupyterFrontEnd, workbench: IWorkbench, restorer: ILayoutRestorer | null): void {
    const open = (run: string): void => void app.commands.execute(Commands.open, { run });
    const showAll = (): void => void app.commands.execute(Commands.runs);
    const widget = new Sidebar(workbench, { open, showAll });
    app.commands.addCommand(Commands.sidebar, {
      label: workbench.trans.__("Show the MoE Sidebar"),
      describedBy: { args: { type: "object", properties: {} } },
      execute: () => app.shell.activateById(widget.id),
    });
    app.shell.add(widget, "left", { rank: 600, type: "MoE Workbench" });
    restorer?.add(widget, widget.id);
  },
};

const status: JupyterFrontEndPlugin<void> = {
  id: `${NAME}:status`,
  description: "The active run in the status bar: status, step and loss.",
  autoStart: true,
  requires: [IWorkbench],
  // Notebook has no status bar.
  optional: [IStatusBar],
  activate(app: JupyterFrontEnd, workbench: IWorkbench, bar: IStatusBar | null): void {
    if (bar === null) return;
    const item = new StatusItem(workbench, (run) => void app.commands.execute(Commands.open, { run }));
    bar.registerStatusItem(status.id, { item, align: "left", rank: 2, isActive: () => item.isActive, activeStateChanged: item.activeChanged });
  },
};

const plugins: JupyterFrontEndPlugin<any>[] = [core, panels, sidebar, status];
export default plugins;
