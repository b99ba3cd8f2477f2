// @ts-check
/** Look of the page of all runs. */

export const HOME_STYLE = `
.moe-view.moe-home { container: moe-home / inline-size; padding: 0; border: 0; background: none; }
.moe-live-list { max-width: 1240px; margin: 0 auto; padding: 22px 20px 56px; }
.moe-live-one { padding: 14px 20px 40px; }
@container moe-home (max-width: 560px) { .moe-live-list { padding: 18px 12px 40px; } .moe-live-one { padding: 10px 8px 30px; } }
.moe-home [hidden] { display: none !important; }
.moe-home .moe-icon { flex: none; vertical-align: -2px; }
.moe-home h2 { margin: 0; font-size: 22px; line-height: 1.3; font-weight: 650; color: var(--moe-text); }
.moe-home h3 { margin: 0 0 2px; font-size: 17px; line-height: 1.3; font-weight: 650; color: var(--moe-text); }
.moe-block { margin-top: 26px; }
.moe-lessons { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr)); gap: 12px; margin: 12px 0 0; padding: 0; list-style: none; }
.moe-lesson { display: flex; flex-direction: column; padding: 16px 18px; border: 1px solid var(--moe-line); border-radius: 10px; background: var(--moe-surface); }
.moe-lesson[data-open] { grid-column: 1 / -1; }
.moe-lesson h4 { margin: 0 0 4px; font-size: 15px; line-height: 1.35; font-weight: 650; color: var(--moe-text); }
.moe-lesson > p { margin: 0; font-size: 13.5px; color: var(--moe-muted); }
.moe-lesson > p + .moe-live-row { margin-top: auto; padding-top: 12px; }
.moe-home .moe-live-row { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; }
.moe-home .moe-live-row .moe-button { display: inline-flex; align-items: center; gap: 7px; min-height: 32px; }
.moe-home .moe-button.moe-main { min-width: 92px; justify-content: center; border-color: var(--moe-accent); background: var(--moe-accent); color: var(--moe-surface); font-weight: 600; }
.moe-lesson > .moe-live-problem { margin-top: 8px; color: var(--moe-event); }
.moe-live-problem:empty { display: none; }
.moe-live-form { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 190px), 1fr)); gap: 10px 16px; margin-top: 14px; padding-top: 14px; border-top: 1px solid var(--moe-grid); }
.moe-live-setting { display: flex; flex-direction: column; gap: 3px; min-width: 0; font-size: 13px; }
.moe-live-setting small { color: var(--moe-muted); font-size: 12px; }
.moe-home .moe-live-input, .moe-home .moe-live-setting .moe-select { min-height: 32px; min-width: 0; width: 100%; padding: 3px 10px; border: 1px solid var(--moe-line); border-radius: 6px; background: var(--moe-surface); color: var(--moe-text); font: inherit; font-size: 13px; }
.moe-home .moe-live-setting .moe-live-input { flex: none; }
.moe-table-host { margin-top: 12px; }
.moe-live-picks { display: flex; flex-wrap: wrap; gap: 2px 18px; margin: 8px 0 10px; }
.moe-home .moe-live-tick { display: inline-flex; align-items: center; gap: 6px; min-height: 28px; font-size: 13.5px; overflow-wrap: anywhere; }
.moe-home .moe-live-tick input { flex: none; width: 18px; height: 18px; margin: 3px; accent-color: var(--moe-accent); }
.moe-live-scroll { overflow-x: auto; border: 1px solid var(--moe-line); border-radius: 10px; background: var(--moe-surface); }
.moe-live-compare { width: 100%; border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; }
.moe-live-compare th, .moe-live-compare td { padding: 7px 14px; border-top: 1px solid var(--moe-grid); text-align: left; font-weight: 400; color: var(--moe-text); background: none; }
.moe-live-compare thead th { border-top: 0; font-weight: 650; }
.moe-live-compare tbody th { color: var(--moe-muted); white-space: nowrap; }
.moe-live-compare tr[data-differs] td { font-weight: 650; }
.moe-live-compare small { margin-left: 4px; padding: 0 7px; border: 1px solid var(--moe-event); border-radius: 9px; font-size: 11.5px; color: var(--moe-event); }
.moe-block > .moe-quiet { margin: 12px 0 0; padding: 16px 18px; border: 1px dashed var(--moe-line); border-radius: 10px; color: var(--moe-muted); }
.moe-live-crumbs > .moe-button { min-height: 32px; }
.moe-live-crumbs { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; justify-content: space-between; margin-bottom: 12px; }
`;
