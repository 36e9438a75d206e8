"use strict";
// Computes ONNX graphs with plain loops. A tensor is {shape, data}: sizes, and a typed array in row-major order.
// Each kernel is (inputs, attributes, node) -> tensor, or a list of tensors.

const count = (shape) => shape.reduce((product, size) => product * size, 1);
const make = (shape, data) => ({ shape, data: data || new Float32Array(count(shape)) });

function strides(shape) {
  const steps = new Array(shape.length);
  for (let i = shape.length - 1, step = 1; i >= 0; step *= shape[i--]) steps[i] = step;
  return steps;
}

// Where the elements of an array are that is read along other axes: calls visit(i, offset) for i = 0, 1, ...
function walk(shape, steps, start, visit) {
  const rank = shape.length, index = new Array(rank).fill(0), total = count(shape);
  if (!rank) return visit(0, start);
  const last = shape[rank - 1], step = steps[rank - 1];
  for (let i = 0, offset = start; i < total;) {
    for (let j = 0, at = offset; j < last; j++, at += step) visit(i++, at);
    for (let axis = rank - 2; axis >= 0; axis--) {
      offset += steps[axis];
      if (++index[axis] < shape[axis]) break;
      offset -= steps[axis] * shape[axis];
      index[axis] = 0;
    }
  }
}

function moved(x, shape, steps, start = 0) {
  const out = make(shape, new x.data.constructor(count(shape)));
  walk(shape, steps, start, (i, at) => { out.data[i] = x.data[at]; });
  return out;
}

function broadcastShape(shapes) {
  const rank = Math.max(...shapes.map((shape) => shape.length));
  return Array.from({ length: rank }, (_, axis) =>
    Math.max(...shapes.map((shape) => shape[axis - rank + shape.length] ?? 1)));
}

// The array repeated to a shape; itself where it has that.
function repeated(x, shape) {
  if (x.shape.length === shape.length && x.shape.every((size, axis) => size === shape[axis])) return x;
  const own = strides(x.shape), shift = shape.length - x.shape.length;
  const steps = shape.map((_, axis) => (axis < shift || x.shape[axis - shift] === 1 ? 0 : own[axis - shift]));
  return moved(x, shape, steps);
}

const each = (f) => ([x]) => {
  const out = make(x.shape);
  for (let i = 0; i < out.data.length; i++) out.data[i] = f(x.data[i]);
  return out;
};

const pairs = (f) => ([a, b]) => {
  const shape = broadcastShape([a.shape, b.shape]), out = make(shape);
  const constant = b.data.length === 1, x = repeated(a, shape).data, y = constant ? b.data : repeated(b, shape).data;
  if (constant) for (let i = 0, c = y[0]; i < x.length; i++) out.data[i] = f(x[i], c);
  else for (let i = 0; i < x.length; i++) out.data[i] = f(x[i], y[i]);
  return out;
};

// The part [low, high) of output positions whose input position `from + step * i` is inside of a side.
function inside(from, step, size, outputs) {
  const low = Math.max(0, Math.ceil(-from / step)), high = Math.min(outputs, Math.floor((size - 1 - from) / step) + 1);
  return [low, Math.max(low, high)];
}

function windowed(x, { kernel_shape: [kh, kw], strides: [sy, sx], pads: [top, left, bottom, right], dilations }) {
  const [dy, dx] = dilations || [1, 1], [, , h, w] = x.shape;
  const rows = Math.floor((h + top + bottom - (kh - 1) * dy - 1) / sy) + 1;
  const columns = Math.floor((w + left + right - (kw - 1) * dx - 1) / sx) + 1;
  return { kh, kw, sy, sx, top, left, dy, dx, h, w, rows, columns };
}

function conv([x, weights, bias], attributes) {
  const g = windowed(x, attributes), [n, channels] = x.shape, [outputs, inner] = weights.shape;
  const out = make([n, outputs, g.rows, g.columns]), per = outputs / attributes.group, area = g.rows * g.columns;
  const pointwise = g.kh * g.kw === 1 && g.sy * g.sx === 1 && area === g.h * g.w;
  for (let image = 0; image < n; image++) {
    for (let o = 0; o < outputs; o++) {
      const to = (image * outputs + o) * area, first = Math.floor(o / per) * inner;
      if (bias) out.data.fill(bias.data[o], to, to + area);
      for (let c = 0; c < inner; c++) {
        const from = (image * channels + first + c) * g.h * g.w, at = (o * inner + c) * g.kh * g.kw;
        if (!pointwise) accumulateWindow(out.data, to, x.data, from, weights.data, at, g);
        else if (c + 4 <= inner) {
          accumulateFour(out.data, to, x.data, from, weights.data, at, area);
          c += 3;
        } else accumulate(out.data, to, x.data, from, weights.data[at], area);
      }
    }
  }
  return out;
}

function accumulate(out, to, x, from, weight, length) {
  for (let i = 0; i < length; i++) out[to + i] += weight * x[from + i];
}

// Four at a time, as most of the time goes into reading and writing the sums.
function accumulateFour(out, to, x, from, weights, at, length) {
  const w0 = weights[at], w1 = weights[at + 1], w2 = weights[at + 2], w3 = weights[at + 3];
  const x0 = x.subarray(from, from + length), x1 = x.subarray(from + length, from + 2 * length);
  const x2 = x.subarray(from + 2 * length, from + 3 * length), x3 = x.subarray(from + 3 * length, from + 4 * length);
  const sums = out.subarray(to, to + length);
  for (let i = 0; i < length; i++) sums[i] += w0 * x0[i] + w1 * x1[i] + w2 * x2[i] + w3 * x3[i];
}

function accumulateWindow(out, to, x, from, weights, at, g) {
  if (g.kw === 3 && g.sx === 1 && g.dx === 1) return accumulateThree(out, to, x, from, weights, at, g);
  for (let ky = 0; ky < g.kh; ky++) {
    const y0 = ky * g.dy - g.top, [low, high] = inside(y0, g.sy, g.h, g.rows);
    for (let kx = 0; kx < g.kw; kx++) {
      const x0 = kx * g.dx - g.left, [left, right] = inside(x0, g.sx, g.w, g.columns);
      const weight = weights[at + ky * g.kw + kx];
      for (let i = low; i < high; i++) {
        let source = from + (y0 + i * g.sy) * g.w + x0 + left * g.sx;
        for (let j = to + i * g.columns + left, end = j - left + right; j < end; j++, source += g.sx) {
          out[j] += weight * x[source];
        }
      }
    }
  }
}

// The three columns of a kernel at once, where all three are inside of the image.
function accumulateThree(out, to, x, from, weights, at, g) {
  const [low, high] = [Math.max(0, g.left), Math.min(g.columns, g.w - 2 + g.left)];
  const edges = Array.from({ length: g.columns }, (_, j) => j).filter((j) => j < low || j >= high);
  for (let ky = 0; ky < g.kh; ky++) {
    const y0 = ky * g.dy - g.top, [first, last] = inside(y0, g.sy, g.h, g.rows);
    const row = weights.subarray(at + 3 * ky, at + 3 * ky + 3), w0 = row[0], w1 = row[1], w2 = row[2];
    for (let i = first; i < last; i++) {
      const source = from + (y0 + i * g.sy) * g.w - g.left, line = to + i * g.columns;
      for (let j = low; j < high; j++) {
        const k = source + j;
        out[line + j] += w0 * x[k] + w1 * x[k + 1] + w2 * x[k + 2];
      }
      for (const j of edges) {
        for (let kx = 0; kx < 3; kx++) {
          const column = j + kx - g.left;
          if (column >= 0 && column < g.w) out[line + j] += row[kx] * x[source + j + kx];
        }
      }
    }
  }
}

const pool = (isMax) => ([x], attributes) => {
  const g = windowed(x, attributes), [n, channels] = x.shape, area = g.rows * g.columns;
  const out = make([n, channels, g.rows, g.columns]);
  out.data.fill(isMax ? -Infinity : 0);
  for (let map = 0; map < n * channels; map++) {
    for (let ky = 0; ky < g.kh; ky++) {
      const y0 = ky - g.top, [low, high] = inside(y0, g.sy, g.h, g.rows);
      for (let kx = 0; kx < g.kw; kx++) {
        const x0 = kx - g.left, [left, right] = inside(x0, g.sx, g.w, g.columns);
        for (let i = low; i < high; i++) {
          for (let j = left; j < right; j++) {
            const to = map * area + i * g.columns + j;
            const value = x.data[(map * g.h + y0 + i * g.sy) * g.w + x0 + j * g.sx];
            if (!isMax) out.data[to] += value;
            else if (value > out.data[to]) out.data[to] = value;
          }
        }
      }
    }
  }
  if (!isMax) for (let i = 0; i < out.data.length; i++) out.data[i] /= g.kh * g.kw;
  return out;
};

function matmul([a, b, bias]) {
  const inner = a.shape[a.shape.length - 1], columns = b.shape[1], rows = a.data.length / inner;
  const out = make([...a.shape.slice(0, -1), columns]);
  if (bias) out.data.set(repeated(bias, out.shape).data);
  for (let i = 0; i < rows; i++) {
    for (let k = 0; k < inner; k++) accumulate(out.data, i * columns, b.data, k * columns, a.data[i * inner + k], columns);
  }
  return out;
}

function einsum([a, b], { equation }) {
  const [left, right, result] = equation.split(/,|->/);
  const sizes = {};
  [...left].forEach((letter, axis) => { sizes[letter] = a.shape[axis]; });
  [...right].forEach((letter, axis) => { sizes[letter] = b.shape[axis]; });
  const summed = [...left].filter((letter) => !result.includes(letter)), all = [...result, ...summed];
  const shape = all.map((letter) => sizes[letter]);
  const steps = (text, x) => all.map((letter) => (text.includes(letter) ? strides(x.shape)[text.indexOf(letter)] : 0));
  const x = moved(a, shape, steps(left, a)), y = moved(b, shape, steps(right, b));
  const out = make([...result].map((letter) => sizes[letter])), terms = count(summed.map((letter) => sizes[letter]));
  for (let i = 0; i < x.data.length; i++) out.data[Math.floor(i / terms)] += x.data[i] * y.data[i];
  return out;
}

const reduce = (start, join, finish = (x) => x) => ([x, axes]) => {
  const removed = new Set(axes.data), kept = x.shape.map((_, axis) => axis).filter((axis) => !removed.has(axis));
  const order = [...kept, ...removed], turned = transpose([x], { perm: order });
  const out = make(kept.map((axis) => x.shape[axis])), terms = turned.data.length / out.data.length;
  for (let i = 0; i < out.data.length; i++) {
    let total = start;
    for (let j = i * terms; j < (i + 1) * terms; j++) total = join(total, turned.data[j]);
    out.data[i] = finish(total, terms);
  }
  return out;
};

function transpose([x], { perm }) {
  const own = strides(x.shape);
  return moved(x, perm.map((axis) => x.shape[axis]), perm.map((axis) => own[axis]));
}

function reshape([x, sizes]) {
  const shape = [...sizes.data], open = shape.indexOf(-1);
  if (open >= 0) shape[open] = x.data.length / -count(shape);
  return make(shape, x.data);
}

function concat(inputs, { axis }) {
  const shape = [...inputs[0].shape];
  shape[axis] = inputs.reduce((total, x) => total + x.shape[axis], 0);
  const out = make(shape), block = count(shape.slice(axis)), outer = count(shape.slice(0, axis));
  let start = 0;
  for (const x of inputs) {
    const size = count(x.shape.slice(axis));
    for (let i = 0; i < outer; i++) out.data.set(x.data.subarray(i * size, (i + 1) * size), i * block + start);
    start += size;
  }
  return out;
}

function pad([x, pads, value]) {
  const rank = x.shape.length, before = [...pads.data].slice(0, rank);
  const shape = x.shape.map((size, axis) => size + pads.data[axis] + pads.data[rank + axis]);
  const out = make(shape), own = strides(x.shape), steps = strides(shape);
  out.data.fill(value ? value.data[0] : 0);
  const low = before.map((amount) => Math.max(0, -amount));
  const size = shape.map((side, axis) => Math.min(x.shape[axis], side - before[axis]) - low[axis]);
  const offset = (start, strides) => start.reduce((sum, at, axis) => sum + at * strides[axis], 0);
  const part = moved(x, size, own, offset(low, own));
  walk(size, steps, offset(low.map((at, axis) => at + before[axis]), steps), (i, at) => { out.data[at] = part.data[i]; });
  return out;
}

function slice([x, starts, ends, axes, steps]) {
  const shape = [...x.shape], own = strides(x.shape), moves = [...own];
  let offset = 0;
  axes.data.forEach((axis, i) => {
    const step = steps.data[i], size = x.shape[axis], backwards = step < 0;
    const start = starts.data[i] < 0 ? starts.data[i] + size : starts.data[i];
    const end = backwards ? -1 : Math.min(ends.data[i], size);
    shape[axis] = Math.ceil((end - start) / step);
    offset += start * own[axis];
    moves[axis] *= step;
  });
  return moved(x, shape, moves, offset);
}

function split([x, sizes], { axis }) {
  const own = strides(x.shape);
  let start = 0;
  return [...sizes.data].map((size) => {
    const shape = [...x.shape];
    shape[axis] = size;
    start += size;
    return moved(x, shape, own, (start - size) * own[axis]);
  });
}

function softmax([x]) {
  const size = x.shape[x.shape.length - 1], out = make(x.shape);
  for (let row = 0; row < x.data.length; row += size) {
    const most = x.data.subarray(row, row + size).reduce((a, b) => Math.max(a, b), -Infinity);
    let total = 0;
    for (let i = row; i < row + size; i++) total += out.data[i] = Math.exp(x.data[i] - most);
    for (let i = row; i < row + size; i++) out.data[i] /= total;
  }
  return out;
}

// Abramowitz and Stegun 7.1.26 has 1.5e-7; the series and the continued fraction below are exact to float32.
function erf(x) {
  const size = Math.abs(x);
  if (size > 5) return Math.sign(x);
  if (size < 2.5) {
    let term = size, sum = size;
    for (let n = 1; n < 60; n++) { term *= -size * size / n; sum += term / (2 * n + 1); }
    return Math.sign(x) * sum * 2 / Math.sqrt(Math.PI);
  }
  let fraction = 0;
  for (let n = 60; n > 0; n--) fraction = n / 2 / (size + fraction);
  return Math.sign(x) * (1 - Math.exp(-size * size) / Math.sqrt(Math.PI) / (size + fraction));
}

const INTEGERS = new Set([2, 3, 4, 5, 6, 7, 12, 13]); // ONNX's numbers of their types; 9 is that of booleans

const KERNELS = {
  Conv: conv, MaxPool: pool(true), AveragePool: pool(false), Gemm: matmul, MatMul: matmul, Einsum: einsum,
  ReduceMean: reduce(0, (a, b) => a + b, (total, terms) => total / terms), ReduceSum: reduce(0, (a, b) => a + b),
  ReduceMax: reduce(-Infinity, Math.max), ReduceMin: reduce(Infinity, Math.min), ReduceProd: reduce(1, (a, b) => a * b),
  Add: pairs((a, b) => a + b), Sub: pairs((a, b) => a - b), Mul: pairs((a, b) => a * b), Div: pairs((a, b) => a / b),
  Max: pairs(Math.max), Min: pairs(Math.min), Pow: pairs(Math.pow),
  Equal: pairs((a, b) => a === b), Greater: pairs((a, b) => a > b), GreaterOrEqual: pairs((a, b) => a >= b),
  Less: pairs((a, b) => a < b), LessOrEqual: pairs((a, b) => a <= b), And: pairs((a, b) => a && b),
  Or: pairs((a, b) => a || b), Not: each((x) => !x),
  Relu: each((x) => (x > 0 ? x : 0)), Neg: each((x) => -x), Abs: each(Math.abs), Sign: each(Math.sign),
  Exp: each(Math.exp), Log: each(Math.log), Sqrt: each(Math.sqrt), Reciprocal: each((x) => 1 / x), Erf: each(erf),
  Tanh: each(Math.tanh), Sigmoid: each((x) => 1 / (1 + Math.exp(-x))), Floor: each(Math.floor), Ceil: each(Math.ceil),
  Sin: each(Math.sin), Cos: each(Math.cos),
  Cast: ([x], { to }) => each(to === 9 ? (value) => value !== 0 : INTEGERS.has(to) ? Math.trunc : (value) => value)([x]),
  Where: ([which, yes, no]) => {
    const shape = broadcastShape([which.shape, yes.shape, no.shape]), out = make(shape);
    const [c, a, b] = [which, yes, no].map((x) => repeated(x, shape).data);
    for (let i = 0; i < c.length; i++) out.data[i] = c[i] ? a[i] : b[i];
    return out;
  },
  Reshape: reshape, Transpose: transpose, Concat: concat, Pad: pad, Slice: slice, Split: split, Softmax: softmax,
  Squeeze: ([x, axes]) => make(x.shape.filter((_, axis) => ![...axes.data].includes(axis)), x.data),
  Unsqueeze: ([x, axes]) => {
    const shape = [...x.shape];
    for (const axis of axes.data) shape.splice(axis, 0, 1);
    return make(shape, x.data);
  },
  Expand: ([x, sizes]) => repeated(x, broadcastShape([x.shape, [...sizes.data]])),
  Shape: ([x], { start, end }) => make([end - start], Float32Array.from(x.shape.slice(start, end))),
  Gather: ([x, places], { axis }) => {
    if (axis !== 1 || x.shape.length !== 2) throw new Error("Gather: expected places in the rows of a matrix");
    const per = places.data.length, out = make([x.shape[0], ...places.shape]);
    for (let i = 0; i < out.data.length; i++) out.data[i] = x.data[Math.floor(i / per) * x.shape[1] + places.data[i % per]];
    return out;
  },
};

// Computes all tensors of a graph {nodes, constants} from the images [b, H, W, C]: a Map from names to tensors.
function compute(graph, images) {
  const values = new Map([["images", images], ...graph.constants]);
  for (const node of graph.nodes) {
    const made = KERNELS[node.op](node.inputs.map((name) => values.get(name)), node.attributes, node);
    [made].flat().forEach((tensor, i) => values.set(node.outputs[i], tensor));
  }
  return values;
}

// Decodes the graph of a page: its constants are slices of one block of bytes in base 64, of 4 bytes a number.
function decode(page, weights) {
  const text = atob(weights), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const constants = page.constants.map(({ name, shape, type, offset }) => {
    const kind = type === "float32" ? Float32Array : Int32Array;
    return [name, make(shape, new kind(bytes.buffer, offset, count(shape)))];
  });
  return { ...page, constants };
}

if (typeof module !== "undefined") module.exports = { KERNELS, compute, decode, make };
