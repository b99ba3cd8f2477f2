/** The signs of the workbench: the dashboard's own, and one in the theme's colours for the sidebar and the menus. */
import { LabIcon } from "@jupyterlab/ui-components";
import sign from "../../view/dashboard/icon.svg";

// Without an address in it: JupyterLab wants the namespace, and nothing is asked for there.
const SPACE = ["http", "//www.w3.org/2000/svg"].join(":");

export const signIcon = new LabIcon({ name: "moe-workbench:sign", svgstr: sign });

/** Four experts, of which a token takes two. */
export const workbenchIcon = new LabIcon({
  name: "moe-workbench:icon",
  svgstr: `<svg xmlns="${SPACE}" width="16" height="16" viewBox="0 0 24 24"><g class="jp-icon3" fill="#616161">
<path d="M3 3h8v8H3zM13 13h8v8h-8z"/><path fill-rule="evenodd" d="M13 3h8v8h-8zm1.8 1.8v4.4h4.4V4.8zM3 13h8v8H3zm1.8 1.8v4.4h4.4v-4.4z"/></g></svg>`,
});
