// @ts-check
/**
 * Frames of a run, as `workbench.hub.frames` writes them: 32 bytes of header, the topic, the payload; a message is one
 * frame or several, each padded to a multiple of 8.
 */

const MAGIC = 0x46454f4d;
const VERSION = 1;
const HEADER_BYTES = 32;
const FIRST_BRACE = 0x7b;
const FIRST_BRACKET = 0x5b;

/**
 * @typedef {{ topic: string, isWhole: boolean, seq: number, step: number, time: number, payload: Uint8Array }} Frame
 *   time: when it was produced [s since the epoch]
 */

/** @param {any} value bytes of any kind that hosts hand over @returns {Uint8Array} */
export function bytesOf(value) {
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  return new Uint8Array(0);
}

/** @param {number} size @returns {number} */
const padded = (size) => Math.ceil(size / 8) * 8;

/**
 * @param {any} message
 * @returns {Frame[]}
 * @throws {Error} when the bytes are not frames this page can read
 */
export function splitFrames(message) {
  const bytes = bytesOf(message);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found = [];
  let at = 0;
  while (at < bytes.byteLength) {
    if (at + HEADER_BYTES > bytes.byteLength || view.getUint32(at, true) !== MAGIC) throw new Error("these bytes are not frames of a run");
    const version = view.getUint8(at + 4);
    if (version !== VERSION) throw new Error(`frame version ${version}, this page reads version ${VERSION}`);
    const start = at + HEADER_BYTES;
    const topicBytes = view.getUint16(at + 6, true);
    const body = start + padded(topicBytes);
    const payloadBytes = view.getUint32(at + 8, true);
    if (body + payloadBytes > bytes.byteLength) throw new Error("a frame is cut off");
    found.push({
      topic: new TextDecoder().decode(bytes.subarray(start, start + topicBytes)),
      isWhole: view.getUint8(at + 5) === 1,
      seq: Number(view.getBigUint64(at + 12, true)),
      step: view.getInt32(at + 20, true),
      time: view.getFloat64(at + 24, true),
      payload: bytes.subarray(body, body + payloadBytes),
    });
    at = body + padded(payloadBytes);
  }
  return found;
}

/** @param {Uint8Array} payload @returns {boolean} JSON, and not numbers of a view */
export function isJson(payload) {
  return payload[0] === FIRST_BRACE || payload[0] === FIRST_BRACKET;
}
