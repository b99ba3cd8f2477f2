// @ts-check
/** The way to a run through the widget's own traits, for hosts without a hub: VS Code, Colab, marimo. */

/** An answer takes this long when the kernel is busy with a cell; later it is given up [ms]. */
const ANSWER_LIMIT = 60000;

/** @param {import("./_model.js").Model} model @returns {boolean} does the host carry frames at all? */
export function hasComm(model) {
  return model.get("frame") !== undefined;
}

/**
 * @param {import("./_model.js").Model} model traits: `watching` {opening, since, topics, rate}, `frame` bytes, `command` and `acks`
 * @returns {import("./_hub.js").Transport}
 */
export function commTransport(model) {
  const tell = (/** @type {string} */ trait, /** @type {any} */ value) => {
    model.set(trait, value);
    model.save_changes();
  };
  /** @type {Promise<any>} hosts merge a trait that changes twice: one command at a time */
  let last = Promise.resolve();
  return {
    name: "comm",
    connect({ since, onOpen, onBytes }) {
      const opening = String(Math.random());
      const onFrame = () => onBytes(model.get("frame"));
      // A page that goes away without cleaning up must not leave a kernel that publishes to nobody.
      const leave = () => tell("watching", {});
      model.on("change:frame", onFrame);
      window.addEventListener("pagehide", leave);
      queueMicrotask(onOpen);
      return {
        send: (message) => tell("watching", { ...model.get("watching"), opening, since, ...message }),
        close: () => {
          model.off("change:frame", onFrame);
          window.removeEventListener("pagehide", leave);
          leave();
        },
      };
    },
    post: (command) => (last = last.then(() => postByTrait(model, command, tell))),
    diagnose: async () => null,
    acks(listener) {
      const onAcks = () => listener(Object.values(model.get("acks") ?? {}));
      model.on("change:acks", onAcks);
      return () => model.off("change:acks", onAcks);
    },
  };
}

/**
 * @param {import("./_model.js").Model} model @param {{ id: string }} command @param {(trait: string, value: any) => void} tell
 * @returns {Promise<import("./_commands.js").Ack>}
 */
function postByTrait(model, command, tell) {
  return new Promise((resolve) => {
    const finish = (/** @type {import("./_commands.js").Ack} */ ack) => {
      clearTimeout(limit);
      model.off("change:acks", look);
      resolve(ack);
    };
    const look = () => {
      const ack = (model.get("acks") ?? {})[command.id];
      if (ack !== undefined) finish(ack);
    };
    const limit = setTimeout(
      () => finish({ status: "refused", reason: "the kernel did not answer within a minute; it may be busy with a cell" }),
      ANSWER_LIMIT,
    );
    model.on("change:acks", look);
    tell("command", command);
  });
}
