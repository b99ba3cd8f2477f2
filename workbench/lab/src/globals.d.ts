/** Names of the views that show a run; the build puts them in. */
declare const VIEW_NAMES: string[];

/** A picture as its text. */
declare module "*.svg" {
  const text: string;
  export default text;
}
