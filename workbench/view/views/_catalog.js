// @ts-check
/** The views that a live run can show, in tabs: each tab is a question and the views that answer it. */
import { default as expertEffect } from "./expert_effect.js";
import { default as expertFlow } from "./expert_flow.js";
import { default as expertLoad } from "./expert_load.js";
import { default as generation } from "./generation.js";
import { default as lossCurves } from "./loss_curves.js";
import { default as offloadTimeline } from "./offload_timeline.js";
import { default as residency } from "./residency.js";
import { default as routerSwap } from "./router_swap.js";
import { default as shadowRouter } from "./shadow_router.js";
import { default as tokenStrip } from "./token_strip.js";

/** @type {Record<string, { render: (host: { model: import("./_model.js").Model, el: HTMLElement }) => (() => void) }>} */
export const VIEWS = {
  loss_curves: lossCurves,
  expert_load: expertLoad,
  token_strip: tokenStrip,
  expert_flow: expertFlow,
  router_swap: routerSwap,
  shadow_router: shadowRouter,
  expert_effect: expertEffect,
  residency,
  offload_timeline: offloadTimeline,
  generation,
};

/** @type {{ id: string, label: string, hint: string, views: string[] }[]} */
export const TABS = [
  { id: "training", label: "Training", hint: "Is it learning, and which experts do the work?", views: ["loss_curves", "expert_load"] },
  { id: "tokens", label: "Tokens", hint: "Where does each token go?", views: ["token_strip"] },
  { id: "flow", label: "Flow", hint: "Which experts work together, from layer to layer?", views: ["expert_flow"] },
  { id: "routers", label: "Routers", hint: "What did the last swap change, and what would another router do?", views: ["router_swap", "shadow_router"] },
  { id: "steering", label: "Steering", hint: "What does one expert do? Pin, ban or boost it.", views: ["expert_effect"] },
  { id: "offload", label: "Offload", hint: "Where do the weights lie, and what does waiting for them cost?", views: ["residency", "offload_timeline"] },
  { id: "text", label: "Text", hint: "What does it write?", views: ["generation"] },
];

/**
 * The tabs of a page that shows these views.
 * @param {string[]} names all views when empty
 * @returns {{ id: string, label: string, hint: string, views: string[] }[]}
 */
export function tabsOf(names) {
  const isShown = (/** @type {string} */ name) => name in VIEWS && (names.length === 0 || names.includes(name));
  return TABS.map((tab) => ({ ...tab, views: tab.views.filter(isShown) })).filter(({ views }) => views.length > 0);
}
