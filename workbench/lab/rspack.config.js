/** What the builder of JupyterLab does not know by itself: TypeScript, and the shared views. */
const fs = require("node:fs");
const path = require("node:path");
const { DefinePlugin } = require("@rspack/core");

// The one source of the views: the same modules that widgets, the dashboard and reports show.
const folder = path.resolve(__dirname, "..", "view", "views");
// Views of a page and not of a run.
const pages = ["home", "live", "run_table"];
const modules = fs.readdirSync(folder).filter((file) => /^[a-z]\w*\.js$/.test(file));
const views = modules.map((file) => path.parse(file).name).filter((name) => !pages.includes(name));

module.exports = {
  resolve: { extensions: [".ts", ".js"], alias: { "moe-views": folder } },
  module: {
    rules: [
      {
        test: /\.ts$/,
        loader: "builtin:swc-loader",
        options: { jsc: { parser: { syntax: "typescript" }, target: "es2022" } },
        type: "javascript/auto",
      },
      { test: /\.svg$/, issuer: /\.ts$/, type: "asset/source" },
    ],
  },
  // Their names alone: what the command palette lists must not load them.
  plugins: [new DefinePlugin({ VIEW_NAMES: JSON.stringify(views.sort()) })],
};
