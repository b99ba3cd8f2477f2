// A host: imports the module from a blob as anywidget does, and hands bytes over as a DataView into a larger buffer.
async ([source, payload]) => {
  const bytesOf = (text) => {
    const raw = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
    const larger = new Uint8Array(raw.length + 8);
    larger.set(raw, 3);
    return new DataView(larger.buffer, 3, raw.length);
  };
  const traits = { payload: bytesOf(payload), selection: {} };
  const listeners = {};
  const model = {
    get: (name) => traits[name],
    set: (name, value) => { traits[name] = value; (listeners["change:" + name] || []).forEach((call) => call()); },
    save_changes: () => { window.saves = (window.saves || 0) + 1; },
    on: (event, call) => { (listeners[event] = listeners[event] || []).push(call); },
    off: (event, call) => { listeners[event] = (listeners[event] || []).filter((other) => other !== call); },
  };
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const view = (await import(url)).default;
  const el = document.querySelector("#host");
  window.cleanup = await view.render({ model, el });
  window.send = (text) => model.set("payload", bytesOf(text));
  window.model = model;
  window.listenerCount = () => Object.values(listeners).reduce((sum, list) => sum + list.length, 0);
}
