// @ts-check
/** One style sheet for all views, placed inside each view so that it also works in a shadow root. */
import { variableRules } from "./_theme.js";

const RULES = `
.moe-view { container-type: inline-size; box-sizing: border-box; width: 100%; padding: 18px 20px 16px; border: 1px solid var(--moe-line);
  border-radius: 10px; background: var(--moe-surface); color: var(--moe-text); font: 14px/1.45 var(--moe-font); text-align: left; }
.moe-view *, .moe-view *::before { box-sizing: border-box; }
.moe-title { margin: 0; font-size: 18px; line-height: 1.3; font-weight: 650; color: var(--moe-text); text-wrap: balance; }
.moe-badge { display: inline-block; margin-left: 10px; padding: 0 9px; border: 1.5px solid var(--moe-event); border-radius: 11px; font-size: 12px; line-height: 20px;
  font-weight: 600; vertical-align: 2px; color: var(--moe-event); }
.moe-lead { margin: 4px 0 0; max-width: 78ch; color: var(--moe-text); }
.moe-lead:empty { display: none; }
.moe-toolbar { display: flex; flex-wrap: wrap; gap: 10px 18px; align-items: center; margin: 14px 0 10px; }
.moe-toolbar:empty { display: none; }
.moe-field { display: inline-flex; align-items: center; gap: 8px; min-height: 28px; color: var(--moe-muted); font-size: 13px; }
.moe-field .moe-value { color: var(--moe-text); font-variant-numeric: tabular-nums; min-width: 3ch; }
.moe-wide { flex: 1 1 260px; }
.moe-wide .moe-slider { flex: 1 1 80px; width: auto; }
.moe-slider { width: 120px; min-width: 60px; height: 24px; margin: 0; accent-color: var(--moe-accent); }
.moe-select, .moe-button { min-height: 30px; padding: 3px 10px; border: 1px solid var(--moe-line); border-radius: 6px; background: var(--moe-surface);
  color: var(--moe-text); font: inherit; font-size: 13px; cursor: pointer; max-width: 100%; }
.moe-button:hover, .moe-select:hover { background: var(--moe-panel); }
.moe-button[aria-pressed="true"] { background: var(--moe-panel); border-color: var(--moe-accent); box-shadow: inset 0 0 0 1px var(--moe-accent); }
.moe-view :focus-visible { outline: 3px solid var(--moe-accent); outline-offset: 2px; border-radius: 4px; }
.moe-canvas { display: block; cursor: crosshair; touch-action: pan-y; }
.moe-split { display: grid; grid-template-columns: minmax(0, 1fr) 210px; gap: 4px 20px; align-items: start; }
.moe-split + .moe-split { margin-top: 18px; }
.moe-plot-title { grid-column: 1 / -1; margin: 0; font-size: 13px; font-weight: 600; }
.moe-plot-title small { font-size: 12px; font-weight: 400; color: var(--moe-muted); }
/* JupyterLab styles the lists of an output by their tags: a class alone does not win over that. */
.moe-view .moe-facts { display: grid; grid-template-columns: 1fr auto; gap: 3px 12px; margin: 6px 0 0; font-size: 13px; }
.moe-view .moe-facts dt { float: none; width: auto; font-weight: 400; color: var(--moe-muted); }
.moe-view .moe-facts dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums; }
.moe-legend-title { margin: 4px 0 2px; font-size: 12.5px; color: var(--moe-muted); }
.moe-legend { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 0 12px; }
.moe-legend-row { display: flex; align-items: center; gap: 8px; width: 100%; min-height: 26px; padding: 1px 4px; border: 0; border-radius: 4px;
  background: none; color: var(--moe-text); font: inherit; font-size: 13px; text-align: left; cursor: pointer; }
.moe-legend-row:hover, .moe-legend-row[aria-pressed="true"] { background: var(--moe-panel); }
.moe-legend-name { flex: 1; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.moe-legend-value { font-variant-numeric: tabular-nums; }
.moe-readout { min-height: 1.45em; margin: 8px 0 0; font-variant-numeric: tabular-nums; }
.moe-keys { margin: 6px 0 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: 12.5px; color: var(--moe-muted); }
.moe-keys li { display: inline-flex; align-items: center; gap: 6px; }
.moe-findings { margin: 12px 0 0; padding: 0; list-style: none; }
.moe-findings li { padding: 3px 0 3px 22px; position: relative; }
.moe-findings li::before { content: attr(data-mark); position: absolute; left: 2px; font-weight: 700; }
.moe-events { margin: 14px 0 0; padding: 0; list-style: none; display: grid; gap: 6px; font-size: 13px; }
.moe-events li { display: flex; flex-wrap: wrap; gap: 4px 12px; align-items: center; }
.moe-events li > span { flex: 1 1 300px; color: var(--moe-muted); }
.moe-events .moe-button { text-align: left; }
.moe-events b { display: inline-block; min-width: 18px; height: 18px; margin-right: 7px; border-radius: 9px; background: var(--moe-event);
  color: var(--moe-surface); font-size: 11px; line-height: 18px; text-align: center; }
.moe-foot { display: flex; flex-wrap: wrap; gap: 8px 16px; align-items: baseline; justify-content: space-between; margin-top: 14px; padding-top: 10px;
  border-top: 1px solid var(--moe-grid); }
.moe-notes { flex: 1 1 300px; margin: 0; font-size: 12.5px; color: var(--moe-muted); }
.moe-notes span { display: block; }
.moe-message { margin: 14px 0 4px; padding: 14px 16px; border-radius: 8px; background: var(--moe-panel); }
.moe-numbers { max-height: 380px; overflow: auto; margin-top: 10px; border: 1px solid var(--moe-line); border-radius: 6px; }
.moe-table { border-collapse: collapse; width: 100%; font-size: 12.5px; font-variant-numeric: tabular-nums; }
.moe-table caption { padding: 8px 10px; text-align: left; color: var(--moe-muted); }
.moe-table th, .moe-table td { padding: 4px 10px; border-top: 1px solid var(--moe-grid); text-align: right; font-weight: 400; white-space: nowrap;
  background: none; color: var(--moe-text); }
.moe-table thead th { position: sticky; top: 0; background: var(--moe-panel); font-weight: 600; }
.moe-table th:first-child { text-align: left; }
.moe-said { margin: 0; min-height: 1.4em; font-size: 13px; color: var(--moe-muted); }
.moe-said:empty { min-height: 0; }
.moe-refused { color: var(--moe-event); font-weight: 600; }
.moe-copy { display: inline-flex; flex-wrap: wrap; gap: 6px 10px; align-items: center; }
.moe-code { padding: 4px 8px; border: 1px solid var(--moe-line); border-radius: 6px; background: var(--moe-panel); font: 12.5px/1.5 var(--moe-mono); overflow-wrap: anywhere; }
.moe-button:disabled { color: var(--moe-muted); border-style: dashed; cursor: not-allowed; }
.moe-hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.moe-view [hidden] { display: none; }
@container (max-width: 620px) { .moe-split { grid-template-columns: minmax(0, 1fr); } }
@media (prefers-reduced-motion: no-preference) { .moe-button { transition: background-color 120ms; } }
@media print { .moe-view { break-inside: avoid; } .moe-toolbar, .moe-foot .moe-button { display: none; } }
`;

/** @param {string} [extra] rules of one view @returns {HTMLStyleElement} */
export function styleElement(extra = "") {
  const style = document.createElement("style");
  style.textContent = variableRules() + RULES + extra;
  return style;
}
