/** What the page of all runs shows, made of the parts that the dashboard shows too. */
import { createCompare } from "moe-views/_compare.js";
import { h } from "moe-views/_dom.js";
import { HOME_STYLE } from "moe-views/_home_style.js";
import { lessonCard } from "moe-views/_lessons.js";
import { LIVE_STYLE } from "moe-views/_live_style.js";
import { createModel } from "moe-views/_model.js";
import { styleElement } from "moe-views/_style.js";
import { watchTheme } from "moe-views/_theme.js";
import runTable from "moe-views/run_table.js";
import { presetsOf, start } from "./start_form";
import type { IWorkbench } from "./tokens";

/**
 * @param link values of a preset link, by name
 * @param open called with the run that the reader chose or started
 */
export function createHomePage(
  node: HTMLElement,
  workbench: IWorkbench,
  link: Record<string, string>,
  open: (run: string) => void,
): { show: () => void; close: () => void } {
  const abort = new AbortController();
  const root = h("div", { class: "moe-view moe-home", "data-lm-suppress-shortcuts": true }, styleElement(LIVE_STYLE + HOME_STYLE));
  const lessons = createLessons(workbench, link, open, abort.signal);
  const runs = createRuns(workbench, open);
  const compare = createCompare(abort.signal);
  root.append(lessons, runs.root, compare.root);
  node.append(root);
  watchTheme(root, () => {}, abort.signal);
  return {
    show() {
      runs.show();
      compare.show([...workbench.runs.list]);
    },
    close() {
      abort.abort();
      runs.close();
      root.remove();
    },
  };
}

/** What can be started, the lesson of a link first and with its settings filled in. */
function createLessons({ server, trans }: IWorkbench, link: Record<string, string>, open: (run: string) => void, signal: AbortSignal): HTMLElement {
  const list = h("ul", { class: "moe-lessons" });
  const root = h("section", { class: "moe-block", hidden: true }, h("h3", {}, trans.__("Start")), list);
  const begin = async (preset: string, options: object): Promise<string> => {
    const { id, reason } = await start(server, preset, options);
    if (id !== "") open(id);
    return reason;
  };
  const fill = async (): Promise<void> => {
    const presets = await presetsOf(server);
    const isLinked = (id: string): boolean => link.preset === id;
    presets.sort((a, b) => Number(isLinked(b.id)) - Number(isLinked(a.id)));
    for (const preset of presets) {
      const card = lessonCard(preset, isLinked(preset.id) ? link : {}, begin, signal);
      if (isLinked(preset.id)) card.open();
      list.append(card.root);
    }
    root.hidden = presets.length === 0;
  };
  void fill();
  return root;
}

/** The runs as a table; a row opens its run. */
function createRuns({ runs, trans }: IWorkbench, open: (run: string) => void): { root: HTMLElement; show: () => void; close: () => void } {
  const host = h("div", { class: "moe-table-host", hidden: true });
  const empty = h("p", { class: "moe-quiet" }, trans.__("No run yet. Start one above, or train in a notebook with session.train(..., background=True): it appears here by itself."));
  const model = createModel({ runs: [], run_id: "", selection: {}, payload: null });
  model.on("change:run_id", () => model.get("run_id") && open(model.get("run_id")));
  const end = runTable.render({ model, el: host });
  const root = h("section", { class: "moe-block" }, host, empty);
  return {
    root,
    show() {
      host.hidden = runs.list.length === 0;
      empty.hidden = !host.hidden;
      model.set("runs", [...runs.list]);
    },
    close: end,
  };
}
