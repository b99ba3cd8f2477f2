// @ts-check
/**
 * A payload that grows: a delta brings the rows that follow what the view already has.
 *
 * The delta's header names what grows in `grow`: `append` puts its rows after those that are there, `cumulate` also adds
 * the last row that is there to each of them. Whatever is not named replaces what was there; `events` are appended. Where
 * rows have become wider or narrower, the rest is filled with NaN (-1 in whole numbers), running sums with 0.
 */

/**
 * @typedef {import("./_payload.js").Payload} Payload
 * @typedef {import("./_payload.js").NamedArray} NamedArray
 * @typedef {"append" | "cumulate"} Rule
 */

/** Numbers in use of each buffer made here: the newest payload on it may be continued in place. */
const used = /** @type {WeakMap<ArrayBuffer, number>} */ (new WeakMap());

/**
 * @param {Payload | null} old what the view has
 * @param {Payload} delta
 * @returns {Payload} a new payload; neither argument is changed
 */
export function grow(old, delta) {
  const { grow: rules = {}, arrays: layout, ...fresh } = delta.header;
  if (old === null) return { header: fresh, arrays: delta.arrays };
  const arrays = { ...old.arrays };
  for (const [name, rows] of Object.entries(delta.arrays)) {
    const rule = rules[name];
    arrays[name] = rule === undefined || !(name in old.arrays) ? rows : joined(old.arrays[name], rows, rule);
  }
  const header = { ...old.header, ...fresh };
  if ("events" in header) header.events = [...(old.header.events ?? []), ...(fresh.events ?? [])];
  return { header, arrays };
}

/** @param {NamedArray} old @param {NamedArray} rows @param {Rule} rule @returns {NamedArray} */
function joined(old, rows, rule) {
  const inner = innerShape(old.shape, rows.shape);
  const [before, after] = [fitted(old, inner, rule), fitted(rows, inner, rule)];
  const data = continued(before, after);
  if (rule === "cumulate") addLast(data, before.length, product(inner));
  return { data, shape: [old.shape[0] + rows.shape[0], ...inner] };
}

/** @param {number[]} sizes */
function product(sizes) {
  return sizes.reduce((all, size) => all * size, 1);
}

/** @param {number[]} one @param {number[]} other @returns {number[]} the larger size of every axis but the first */
function innerShape(one, other) {
  if (one.length !== other.length) throw new Error(`rows of ${other.length} axes cannot follow rows of ${one.length}`);
  return one.slice(1).map((size, axis) => Math.max(size, other[axis + 1]));
}

/** @param {NamedArray} array @param {number[]} inner @param {Rule} rule @returns {any} the numbers in rows of that shape */
function fitted({ data, shape }, inner, rule) {
  const own = shape.slice(1);
  if (own.every((size, axis) => size === inner[axis])) return data;
  const out = new data.constructor(shape[0] * product(inner));
  const isWhole = !(data instanceof Float32Array || data instanceof Float64Array);
  out.fill(rule === "cumulate" ? 0 : isWhole ? -1 : NaN);
  const [from, to] = [product(own), product(inner)];
  for (let row = 0; row < shape[0]; row += 1) {
    for (let i = 0; i < from; i += 1) out[row * to + place(i, own, inner)] = data[row * from + i];
  }
  return out;
}

/** @param {number} index in a block of shape `own` @param {number[]} own @param {number[]} inner @returns {number} the same place in a wider block */
function place(index, own, inner) {
  let [rest, at, stride] = [index, 0, 1];
  for (let axis = own.length - 1; axis >= 0; axis -= 1) {
    at += (rest % own[axis]) * stride;
    rest = Math.floor(rest / own[axis]);
    stride *= inner[axis];
  }
  return at;
}

/**
 * One array after the other. Buffers are made with room to spare, so that a long run does not copy all it has at every
 * step; a payload that was continued already is copied, so that none ever changes.
 * @param {any} before @param {any} after @returns {any}
 */
function continued(before, after) {
  const length = before.length + after.length;
  const Type = before.constructor === after.constructor ? before.constructor : Float64Array;
  const isNewest = Type === before.constructor && used.get(before.buffer) === before.length;
  const hasRoom = isNewest && before.buffer.byteLength >= length * Type.BYTES_PER_ELEMENT;
  const buffer = hasRoom ? before.buffer : new ArrayBuffer(Math.ceil(length * 1.5) * Type.BYTES_PER_ELEMENT);
  const data = new Type(buffer, 0, length);
  if (!hasRoom) data.set(before);
  data.set(after, before.length);
  used.set(buffer, length);
  return data;
}

/** @param {any} data @param {number} start first new number @param {number} size of a row */
function addLast(data, start, size) {
  if (start < size) return;
  const last = start - size;
  for (let i = start; i < data.length; i += 1) data[i] += data[last + ((i - start) % size)];
}
