// @ts-check
/**
 * Reads the container written by `workbench.payloads.container`: header and numbers in one value, because hosts do not
 * update several traits at once.
 *
 * Layout: `MOEV`, uint32 version, uint32 header bytes, uint32 zero, header (JSON, UTF-8), then arrays at multiples of 8.
 */

const MAGIC = 0x56454f4d;
const VERSION = 1;
const TYPES = {
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  float32: Float32Array,
  float64: Float64Array,
};

/**
 * @typedef {{ data: any, shape: number[] }} NamedArray
 * @typedef {{ header: any, arrays: Record<string, NamedArray> }} Payload
 */

/**
 * Bytes as hosts hand them over: a DataView (Jupyter, Panel), an ArrayBuffer or any typed array.
 * @param {any} value
 * @returns {Uint8Array | null}
 */
function asBytes(value) {
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  return null;
}

/** @param {any} value @returns {value is Payload} */
function isPayload(value) {
  return typeof value === "object" && value !== null && typeof value.header === "object" && typeof value.arrays === "object";
}

/**
 * @param {any} value the `payload` trait: bytes, or a payload that a host has decoded already
 * @returns {Payload | null} null when nothing has been published yet
 * @throws {Error} when the bytes are not a payload this view can read
 */
export function decode(value) {
  if (isPayload(value)) return value;
  const raw = asBytes(value);
  if (raw === null || raw.byteLength === 0) return null;
  // A copy that starts at 0: typed arrays need aligned offsets, and the host may reuse its buffer.
  const bytes = raw.slice();
  const view = new DataView(bytes.buffer);
  if (bytes.byteLength < 16 || view.getUint32(0, true) !== MAGIC) throw new Error("these bytes are not a view payload");
  const version = view.getUint32(4, true);
  if (version !== VERSION) throw new Error(`payload version ${version}, this view reads version ${VERSION}`);
  const headerBytes = view.getUint32(8, true);
  if (16 + headerBytes > bytes.byteLength) throw new Error("the payload is cut off");
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(16, 16 + headerBytes)));
  const base = Math.ceil((16 + headerBytes) / 8) * 8;
  /** @type {Record<string, NamedArray>} */
  const arrays = {};
  for (const { name, dtype, shape, offset } of header.arrays) {
    const length = shape.reduce((/** @type {number} */ product, /** @type {number} */ size) => product * size, 1);
    const Type = TYPES[/** @type {keyof typeof TYPES} */ (dtype)];
    if (Type === undefined) throw new Error(`unknown number type ${dtype}`);
    if (base + offset + length * Type.BYTES_PER_ELEMENT > bytes.byteLength) throw new Error("the payload is cut off");
    arrays[name] = { data: new Type(bytes.buffer, base + offset, length), shape };
  }
  return { header, arrays };
}
