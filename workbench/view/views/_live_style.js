// @ts-check
/** Look of the live view around the views: header, controls, notices, tabs and log. */

export const LIVE_STYLE = `
.moe-view.moe-live { container: moe-live / inline-size; padding: 0; border-radius: 12px; background: var(--moe-panel); overflow: clip; }
.moe-live [hidden] { display: none !important; }
.moe-live .moe-icon { flex: none; vertical-align: -2px; }
.moe-live-head { padding: 16px 20px 14px; background: var(--moe-surface); }
.moe-live-top { display: flex; flex-wrap: wrap; gap: 6px 14px; align-items: center; }
.moe-live-title { margin: 0; font-size: 20px; line-height: 1.3; font-weight: 650; overflow-wrap: anywhere; color: var(--moe-text); }
.moe-live-about { flex-basis: 100%; margin: 0; font-size: 13px; color: var(--moe-muted); overflow-wrap: anywhere; }
.moe-live-top .moe-badge { margin-left: 0; }
.moe-live-chip { display: inline-flex; align-items: center; gap: 6px; min-height: 26px; padding: 1px 11px; border: 1.5px solid var(--moe-line); border-radius: 13px;
  font-size: 13px; font-weight: 600; line-height: 1.3; color: var(--moe-text); background: var(--moe-surface); }
.moe-live-chip[data-tone="go"] { border-color: var(--moe-mark); }
.moe-live-chip[data-tone="go"] .moe-icon { color: var(--moe-mark); }
.moe-live-chip[data-tone="care"] { border-color: var(--moe-event); color: var(--moe-event); }
.moe-live-chip[data-tone="quiet"] { border: 0; padding-inline: 0; font-weight: 400; color: var(--moe-muted); background: none; }
.moe-live-link { margin-left: auto; }
.moe-live .moe-live-stats { display: grid; grid-template-columns: repeat(3, minmax(110px, 1fr)) minmax(170px, 1.8fr) minmax(110px, 1fr); gap: 10px 22px; margin: 14px 0 0; }
.moe-live-stats div { min-width: 0; }
.moe-live .moe-live-stats dt { float: none; width: auto; font-size: 12px; font-weight: 400; color: var(--moe-muted); }
.moe-live .moe-live-stats dd { margin: 0; font-size: 21px; line-height: 1.25; font-weight: 600; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.moe-live-stats small { white-space: nowrap; }
.moe-live .moe-live-stats div[data-fact="Router"] small { white-space: normal; }
.moe-live-stats small { font-size: 12.5px; font-weight: 400; color: var(--moe-muted); }
.moe-live-progress { height: 4px; background: var(--moe-grid); }
.moe-live-progress > i { display: block; height: 100%; width: 100%; background: var(--moe-mark); transform-origin: left; transform: scaleX(0); }
.moe-live-bar { position: sticky; top: 0; z-index: 3; display: flex; gap: 10px; align-items: flex-start; padding: 10px 20px; background: var(--moe-surface);
  border-block: 1px solid var(--moe-line); }
.moe-live-first, .moe-live-second { display: flex; gap: 8px 10px; align-items: center; }
.moe-live-last { display: inline-flex; gap: 10px; }
.moe-live-second { flex: 1; flex-wrap: wrap; min-width: 0; }
.moe-live-bar .moe-button, .moe-live-extra .moe-button, .moe-live-log .moe-button, .moe-live-notice .moe-button { display: inline-flex; align-items: center; gap: 7px; min-height: 32px; white-space: nowrap; }
.moe-live-bar .moe-live-gap { width: 1px; align-self: stretch; margin: 2px 4px; background: var(--moe-line); }
.moe-button.moe-main { min-width: 104px; justify-content: center; border-color: var(--moe-accent); background: var(--moe-accent); color: var(--moe-surface); font-weight: 600; }
.moe-button.moe-main:hover { background: color-mix(in srgb, var(--moe-accent) 86%, var(--moe-text)); }
.moe-live .moe-button[aria-disabled="true"] { color: var(--moe-muted); border-style: dashed; cursor: default; }
.moe-live .moe-button[aria-disabled="true"]:hover { background: var(--moe-surface); }
.moe-button.moe-sure { border-color: var(--moe-event); color: var(--moe-event); font-weight: 600; }
.moe-button small { font-size: 12px; font-weight: 400; color: var(--moe-muted); font-variant-numeric: tabular-nums; }
.moe-live-bar .moe-select { width: 230px; min-height: 32px; }
.moe-live-life:empty { display: none; }
.moe-live-life { display: flex; flex: 0 1 auto; flex-wrap: wrap; gap: 2px 10px; align-items: baseline; min-height: 20px; margin: 0; font-size: 13px; color: var(--moe-muted); }
.moe-live-life b { font-weight: 600; color: var(--moe-text); }
.moe-live-life[data-status="refused"] span { color: var(--moe-event); }
.moe-live-means { flex-basis: 100%; margin: 0; font-size: 13px; color: var(--moe-muted); }
.moe-live-extra { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 14px 28px; padding: 14px 20px 16px; background: var(--moe-surface); border-bottom: 1px solid var(--moe-line); }
.moe-live-extra fieldset { min-width: 0; margin: 0; padding: 0; border: 0; }
.moe-live-extra legend { padding: 0; font-size: 13px; font-weight: 600; }
.moe-live-extra p { margin: 2px 0 0; font-size: 12.5px; color: var(--moe-muted); }
.moe-live-row { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; margin-top: 7px; }
.moe-live-input { flex: 1 1 140px; min-width: 0; min-height: 32px; padding: 3px 10px; border: 1px solid var(--moe-line); border-radius: 6px; background: var(--moe-surface); color: var(--moe-text); font: inherit; font-size: 13px; }
.moe-live-input::placeholder { color: var(--moe-muted); opacity: 1; }
.moe-live-tick { display: inline-flex; align-items: center; gap: 7px; min-height: 28px; font-size: 13px; }
.moe-live-tick .moe-live-count { flex: none; width: 84px; height: auto; margin: 0; }
.moe-live-tick input[type="checkbox"] { width: 18px; height: 18px; margin: 3px; accent-color: var(--moe-accent); }
.moe-live-notices { display: grid; gap: 8px; padding: 14px 14px 0; }
.moe-live-notices:empty { display: none; }
.moe-live-notice { display: flex; flex-wrap: wrap; gap: 6px 12px; align-items: center; padding: 9px 14px; border: 1px solid var(--moe-line); border-left: 4px solid var(--moe-muted); border-radius: 8px; background: var(--moe-surface); font-size: 13.5px; }
.moe-live-notice[data-tone="care"] { border-left-color: var(--moe-event); }
.moe-live-notice[data-tone="go"] { border-left-color: var(--moe-mark); }
.moe-live-notice .moe-live-close { min-width: 30px; padding: 3px; justify-content: center; border-color: transparent; background: none; }
.moe-live-notice p { flex: 1 1 260px; margin: 0; }
.moe-live-notice pre { flex-basis: 100%; max-height: 220px; margin: 0; padding: 10px 12px; overflow: auto; border-radius: 6px; background: var(--moe-panel); color: var(--moe-text); font: 12.5px/1.5 var(--moe-mono); white-space: pre-wrap; overflow-wrap: anywhere; }
.moe-live-tabs { display: flex; gap: 2px; padding: 10px 14px 0; overflow-x: auto; scrollbar-width: thin; }
.moe-live-tab { flex: none; min-height: 36px; padding: 6px 14px; border: 0; border-bottom: 3px solid transparent; border-radius: 6px 6px 0 0; background: none; color: var(--moe-muted); font: inherit; font-weight: 600; cursor: pointer; }
.moe-live-tab:hover { color: var(--moe-text); background: color-mix(in srgb, var(--moe-text) 6%, transparent); }
.moe-live-tab[aria-selected="true"] { border-bottom-color: var(--moe-accent); color: var(--moe-text); }
.moe-live-tab[data-news]::after { content: ""; display: inline-block; width: 7px; height: 7px; margin-left: 7px; border-radius: 50%; background: var(--moe-event); vertical-align: 2px; }
.moe-live-panel > div { scroll-margin-top: 72px; }
.moe-live-panel { display: grid; grid-template-columns: minmax(0, 1fr); gap: 14px; align-items: start; padding: 14px; }
@container moe-live (min-width: 1120px) { .moe-live-panel[data-count="2"] { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); } }
.moe-live-log { margin: 0 14px 14px; border: 1px solid var(--moe-line); border-radius: 10px; background: var(--moe-surface); }
.moe-live-log summary { display: flex; flex-wrap: wrap; gap: 8px 12px; align-items: center; padding: 10px 16px; font-weight: 600; cursor: pointer; list-style: none; }
.moe-live-log summary::-webkit-details-marker { display: none; }
.moe-live-log summary > .moe-icon { transition: none; transform: rotate(-90deg); }
.moe-live-log[open] summary > .moe-icon { transform: none; }
.moe-live-log summary small { font-size: 13px; font-weight: 400; color: var(--moe-muted); }
.moe-live-log-body { padding: 0 16px 14px; }
.moe-live .moe-live-log ol { margin: 0; padding: 0; list-style: none; }
.moe-live-log li { display: grid; grid-template-columns: 62px minmax(0, 1fr) auto; gap: 2px 12px; align-items: center; padding: 6px 0; border-top: 1px solid var(--moe-grid); font-size: 13.5px; }
.moe-live-log time { color: var(--moe-muted); font-variant-numeric: tabular-nums; font-size: 12.5px; }
.moe-live-log li small { display: block; font-size: 12.5px; color: var(--moe-muted); }
.moe-live-log li[data-status="refused"] small { color: var(--moe-event); }
.moe-live .moe-live-log .moe-live-log-body code { display: block; margin-top: 8px; padding: 10px 12px; border-radius: 6px; background: var(--moe-panel); color: var(--moe-text); font: 12.5px/1.5 var(--moe-mono); white-space: pre-wrap; overflow-wrap: anywhere; }
.moe-live-help dt { float: none; width: auto; font-weight: 400; }
.moe-live .moe-live-help { display: grid; grid-template-columns: auto 1fr; gap: 6px 14px; align-items: center; margin: 0; }
.moe-live .moe-live-help dd { margin: 0; }
.moe-live-help kbd { display: inline-block; min-width: 28px; padding: 2px 8px; border: 1px solid var(--moe-line); border-bottom-width: 2px; border-radius: 5px; background: var(--moe-surface); color: var(--moe-text); font: 12.5px/1.4 var(--moe-mono); text-align: center; }
.moe-live-start { margin: 14px; padding: 26px 22px; border-radius: 10px; background: var(--moe-surface); border: 1px solid var(--moe-line); }
.moe-live-start h3 { margin: 0 0 4px; font-size: 16px; font-weight: 650; color: var(--moe-text); }
.moe-live-start p { margin: 4px 0; max-width: 70ch; }
@container moe-live (max-width: 1020px) { .moe-live-bar .moe-select { width: 148px; } }
@container moe-live (max-width: 860px) {
  .moe-live .moe-live-stats { grid-template-columns: repeat(3, minmax(0, 1fr)); }
  .moe-live .moe-live-stats div[data-fact="Router"] { grid-column: span 2; }
}
@container moe-live (max-width: 560px) {
  .moe-live-head, .moe-live-bar, .moe-live-extra { padding-inline: 14px; }
  .moe-live-link { margin-left: 0; flex-basis: 100%; }
  .moe-live .moe-live-stats { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); }
  .moe-live .moe-live-stats div[data-fact="Router"] { grid-column: 1 / -1; order: 1; }
  .moe-live .moe-live-stats dd { font-size: 18px; }
  .moe-live-notices, .moe-live-panel { padding-inline: 8px; }
  .moe-live-log { margin-inline: 8px; }
  .moe-live-tabs { flex-wrap: wrap; padding-inline: 8px; }
  .moe-live-tab { padding-inline: 10px; }
  .moe-live-bar { display: contents; }
  .moe-live-first { position: sticky; top: 0; z-index: 3; padding: 8px 14px; border-block: 1px solid var(--moe-line); background: var(--moe-surface); }
  .moe-live-second { padding: 8px 14px 10px; border-bottom: 1px solid var(--moe-line); background: var(--moe-surface); }
  .moe-live-bar .moe-live-gap { display: none; }
  .moe-live-bar .moe-select { flex: 1 1 130px; }
  .moe-live-log li { grid-template-columns: minmax(0, 1fr) auto; }
  .moe-live-log time { grid-column: 1 / -1; }
}
@media (prefers-reduced-motion: no-preference) { .moe-live-progress > i { transition: transform 200ms linear; } }
@media (forced-colors: active) {
  .moe-live-tab { border-bottom-color: Canvas; }
  .moe-live-progress > i { background: Highlight; }
  .moe-live-tab[aria-selected="true"] { border-bottom-color: Highlight; }
  .moe-live-tab[data-news]::after { background: Highlight; }
}
@media print { .moe-live-bar, .moe-live-extra, .moe-live-tabs { display: none; } }
`;
