"use strict";
// The page of one network: an image becomes a prediction, and each layer can be looked into.

const $ = (id) => document.getElementById(id);
const network = JSON.parse($("graph").textContent);
const graph = decode(network, $("weights").textContent.trim());
const [HEIGHT, WIDTH, CHANNELS] = network.shape;
const nodeOf = new Map(graph.nodes.map((node) => [node.outputs[0], node]));
const constants = new Map(graph.constants);
const HIDDEN = new Set(["Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Pad", "Slice", "Shape", "Expand", "Split"]);
const MAPS = 64; // shown at once
const pixels = $("pixels").getContext("2d", { willReadFrequently: true });
let values = null, layer = null, map = 0, place = [0, 0], hidden = null, shown = MAPS;

const number = (x) => (Number.isInteger(x) ? String(x) : Math.abs(x) >= 1000 || Math.abs(x) < 0.001 ? x.toExponential(1) : x.toPrecision(3)).replace("-", "\u2212");
const element = (tag, text = "", properties = {}) => Object.assign(document.createElement(tag), { textContent: text }, properties);

// ------------------------------------------------------------------------------------------------------------- the image

function currentImage() {
  const rgba = pixels.getImageData(0, 0, WIDTH, HEIGHT).data, data = new Float32Array(HEIGHT * WIDTH * CHANNELS);
  for (let i = 0; i < HEIGHT * WIDTH; i++) {
    const [r, g, b] = rgba.subarray(4 * i, 4 * i + 3);
    if (CHANNELS === 3) data.set([r, g, b], 3 * i);
    else data.fill(Math.round(0.299 * r + 0.587 * g + 0.114 * b), CHANNELS * i, CHANNELS * (i + 1));
  }
  return { shape: [1, HEIGHT, WIDTH, CHANNELS], data };
}

function withSquare(image, [top, left], side) {
  const data = image.data.slice();
  for (let y = Math.max(0, top); y < Math.min(HEIGHT, top + side); y++) {
    for (let x = Math.max(0, left); x < Math.min(WIDTH, left + side); x++) {
      data.fill(128, (y * WIDTH + x) * CHANNELS, (y * WIDTH + x + 1) * CHANNELS);
    }
  }
  return { shape: image.shape, data };
}

function predict() {
  const start = performance.now();
  const image = currentImage();
  values = compute(graph, hidden ? withSquare(image, hidden, side()) : image);
  const milliseconds = performance.now() - start;
  showPrediction(milliseconds);
  drawOverlay();
  showLayer();
}

function showPrediction(milliseconds) {
  const chances = values.get("probabilities").data, logits = values.get("logits").data;
  const best = [...chances.keys()].sort((a, b) => chances[b] - chances[a]).slice(0, 5);
  $("prediction").replaceChildren(...best.map((index) => {
    const row = element("tr"), bar = element("td", "", { className: "bar" }), fill = element("span");
    fill.style.width = `${100 * chances[index]}%`;
    bar.append(fill);
    row.append(element("th", network.classes[index], { scope: "row", className: "text" }),
      element("td", `${(100 * chances[index]).toFixed(1)} %`), element("td", number(logits[index])), bar);
    return row;
  }));
  $("answer").textContent = network.classes[best[0]];
  $("told").textContent = `${(100 * chances[best[0]]).toFixed(1)} % ${hidden ? "with the square" : ""} (computed in ${milliseconds.toFixed(0)} ms)`;
}

// A photograph is cut to the middle as the evaluation does: the shorter side is scaled, then the center is taken.
async function showFile(file) {
  const picture = await createImageBitmap(file);
  const scale = (network.resize || Math.min(HEIGHT, WIDTH)) / Math.min(picture.width, picture.height);
  const fit = Math.max(scale, HEIGHT / picture.height, WIDTH / picture.width);
  const [w, h] = [picture.width * fit, picture.height * fit];
  pixels.imageSmoothingQuality = "high";
  pixels.drawImage(picture, (WIDTH - w) / 2, (HEIGHT - h) / 2, w, h);
  predict();
}

function clear() {
  pixels.fillStyle = "#000";
  pixels.fillRect(0, 0, WIDTH, HEIGHT);
  hidden = null;
  predict();
}

// Something to begin with: a digit for gray images, a landscape for colored ones.
function drawExample() {
  pixels.fillStyle = CHANNELS === 1 ? "#000" : "#7db8e8";
  pixels.fillRect(0, 0, WIDTH, HEIGHT);
  const [x, y] = [(part) => part * WIDTH, (part) => part * HEIGHT];
  pixels.beginPath();
  if (CHANNELS === 1) {
    pixels.strokeStyle = "#fff";
    pixels.lineWidth = x(0.1);
    pixels.lineCap = pixels.lineJoin = "round";
    pixels.arc(x(0.47), y(0.36), x(0.14), -2.6, 1.4);
    pixels.arc(x(0.47), y(0.65), x(0.16), -1.4, 2.6);
    pixels.stroke();
    return;
  }
  const shapes = [["#4c8a3f", () => pixels.rect(0, y(0.62), x(1), y(0.38))], ["#f6d743", () => pixels.arc(x(0.78), y(0.2), x(0.1), 0, 7)],
    ["#8a5a36", () => pixels.rect(x(0.3), y(0.45), x(0.08), y(0.3))], ["#2f6b33", () => pixels.arc(x(0.34), y(0.34), x(0.18), 0, 7)]];
  for (const [color, outline] of shapes) {
    pixels.fillStyle = color;
    pixels.beginPath();
    outline();
    pixels.fill();
  }
}

function draw([y, x], [y0, x0]) {
  pixels.strokeStyle = $("ink").value;
  pixels.lineWidth = Math.max(1, WIDTH / 12);
  pixels.lineCap = "round";
  pixels.beginPath();
  pixels.moveTo(x0 + 0.5, y0 + 0.5);
  pixels.lineTo(x + 0.5, y + 0.5);
  pixels.stroke();
}

const side = () => Number($("side").value);
const at = (event) => {
  const box = $("pixels").getBoundingClientRect();
  return [(event.clientY - box.top) / box.height * HEIGHT - 0.5, (event.clientX - box.left) / box.width * WIDTH - 0.5];
};

let last = null, waiting = false;
function soon() { // at most one computation a frame
  if (!waiting) requestAnimationFrame(() => { waiting = false; predict(); });
  waiting = true;
}

function pointed(event) {
  const here = at(event);
  if ($("occlude").checked) {
    hidden = here.map((c) => Math.round(c - side() / 2 + 0.5));
    soon();
  } else if (event.buttons & 1) {
    draw(here, last || here);
    last = here;
    soon();
  }
}

$("pixels").addEventListener("pointermove", pointed);
$("pixels").addEventListener("pointerdown", (event) => { last = null; pointed(event); event.preventDefault(); });
addEventListener("pointerup", () => { last = null; });
$("pixels").addEventListener("pointerleave", () => { if (hidden) { hidden = null; soon(); } });
$("pixels").addEventListener("keydown", (event) => {
  const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }, move = moves[event.key];
  if (event.key === "Escape") hidden = null;
  else if (move && $("occlude").checked) {
    const step = Math.max(1, Math.round(side() / 2));
    hidden = (hidden || [0, 0]).map((c, axis) => Math.max(0, Math.min(network.shape[axis] - side(), c + move[axis] * step)));
  } else return;
  event.preventDefault();
  soon();
});
$("side").addEventListener("input", () => { $("side-told").textContent = `${side()} pixels`; if (hidden) soon(); });
$("occlude").addEventListener("change", () => { hidden = null; soon(); });
$("clear").addEventListener("click", clear);
$("file").addEventListener("change", (event) => event.target.files[0] && showFile(event.target.files[0]));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) showFile(event.dataTransfer.files[0]);
});

$("where").addEventListener("click", async () => { // the occlusion map: how much of the prediction each square takes away
  const image = currentImage(), best = values.get("probabilities").data.reduce((b, p, i, all) => (p > all[b] ? i : b), 0);
  const whole = compute(graph, image).get("probabilities").data[best], step = Math.max(1, Math.round(side() / 2));
  const drops = [];
  for (let top = 0; top <= HEIGHT - side(); top += step) {
    const row = [];
    for (let left = 0; left <= WIDTH - side(); left += step) {
      row.push(whole - compute(graph, withSquare(image, [top, left], side())).get("probabilities").data[best]);
    }
    drops.push(row);
    $("where").textContent = `Row ${drops.length} of ${Math.floor((HEIGHT - side()) / step) + 1} \u2026`;
    await new Promise((done) => setTimeout(done));
  }
  $("where").textContent = "Where does it look?";
  const canvas = $("drops");
  paint(canvas, drops.flat(), drops[0].length, drops.length);
  $("drops-box").hidden = false;
  $("drops-told").textContent = `How much less likely "${network.classes[best]}" is with a gray square of ${side()} pixels there: at most ${number(100 * Math.max(...drops.flat()))} points less. Orange: it is less likely; blue: more.`;
});

// ------------------------------------------------------------------------------------------------------------ the layers

// Which pixels of the image position i of a tensor depends on: rows jump * i + low to jump * i + high; null for all.
const fields = new Map([["images", { jump: [1, 1], low: [0, 0], high: [0, 0] }]]);
for (const node of graph.nodes) fields.set(node.outputs[0], fieldOf(node));

function fieldOf(node) {
  const known = node.inputs.filter((name) => !constants.has(name)).map((name) => fields.get(name) ?? null);
  const a = node.attributes;
  if (!known.length || known.includes(null)) return null;
  if (a.kernel_shape) {
    const [{ jump, low, high }] = known, gaps = a.dilations || [1, 1];
    return {
      jump: jump.map((j, i) => j * a.strides[i]),
      low: low.map((l, i) => l - jump[i] * a.pads[i]),
      high: high.map((h, i) => h + jump[i] * ((a.kernel_shape[i] - 1) * gaps[i] - a.pads[i])),
    };
  }
  if (/^(Gemm|MatMul|Einsum|Reduce|Reshape|Squeeze|Unsqueeze|Gather|Softmax|Expand|Shape|Split|Slice|Pad)/.test(node.op)) {
    return null;
  }
  return {
    jump: known[0].jump,
    low: [0, 1].map((i) => Math.min(...known.map((field) => field.low[i]))),
    high: [0, 1].map((i) => Math.max(...known.map((field) => field.high[i]))),
  };
}

const layers = graph.nodes.filter((node) => !HIDDEN.has(node.op) && !(node.op in { Sub: 1, Div: 1, Mul: 1 } && node.inputs[0] === "images"));

function listLayers() {
  $("layers").replaceChildren(...layers.map((node) => {
    const shape = values.get(node.outputs[0]).shape.slice(1);
    return element("option", `${node.outputs[0]}  (${shape.join(" \u00d7 ")})`, { value: node.outputs[0] });
  }));
  const first = layers.find((node) => node.op === "Conv") || layers[0];
  $("layers").value = first.outputs[0];
}

// The maps of a tensor of one image: [channels, rows, columns]; a vector is one row.
function mapsOf(name) {
  const { shape, data } = values.get(name), sizes = shape.slice(1);
  if (sizes.length === 3) return { channels: sizes[0], rows: sizes[1], columns: sizes[2], data };
  return { channels: 1, rows: 1, columns: data.length, data };
}

function showLayer() {
  const node = nodeOf.get($("layers").value);
  if (layer !== node) { layer = node; map = 0; shown = MAPS; place = null; }
  const { channels, rows, columns, data } = mapsOf(node.outputs[0]);
  place = place || [Math.floor(rows / 2), Math.floor(columns / 2)];
  const limit = data.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  const boxes = $("maps"), count = Math.min(channels, shown);
  while (boxes.children.length > count) boxes.lastChild.remove();
  while (boxes.children.length < count) {
    const button = element("button", "", { type: "button", className: "map" }), index = boxes.children.length;
    button.append(element("canvas"));
    button.addEventListener("click", () => { map = index; showLayer(); });
    boxes.append(button);
  }
  [...boxes.children].forEach((button, i) => {
    button.setAttribute("aria-label", `feature map ${i + 1} of ${channels}`);
    button.setAttribute("aria-pressed", String(i === map));
    paint(button.firstChild, data.subarray(i * rows * columns, (i + 1) * rows * columns), columns, rows, limit);
  });
  $("more").hidden = channels <= shown;
  $("more").textContent = `Show all ${channels} feature maps`;
  paint($("large"), data.subarray(map * rows * columns, (map + 1) * rows * columns), columns, rows, limit);
  $("large").style.setProperty("--ratio", `${columns} / ${rows}`);
  $("layer-told").textContent = `${node.op}, ${channels > 1 ? `feature map ${map + 1} of ${channels}` : "its values"}. Orange is positive, blue negative; the strongest is ${number(limit)}.`;
  showPlace();
}

function paint(canvas, data, columns, rows, limit = data.reduce((most, x) => Math.max(most, Math.abs(x)), 0)) {
  const image = new ImageData(columns, rows);
  canvas.width = columns;
  canvas.height = rows;
  for (let i = 0; i < rows * columns; i++) {
    const strength = limit ? Math.min(1, Math.abs(data[i]) / limit) : 0;
    const end = data[i] > 0 ? [213, 94, 0] : [0, 114, 178];
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = 247 + (end[c] - 247) * strength;
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// ------------------------------------------------------------------------------------------------------------- one value

function showPlace() {
  const { rows, columns, data } = mapsOf(layer.outputs[0]);
  place = [Math.min(rows - 1, place[0]), Math.min(columns - 1, place[1])];
  const value = data[(map * rows + place[0]) * columns + place[1]];
  $("place").textContent = rows === 1 ? `Value ${place[1] + 1}: ${number(value)}` : `Row ${place[0] + 1}, column ${place[1] + 1}: ${number(value)}`;
  const marker = $("marker");
  Object.assign(marker.style, { left: `${100 * place[1] / columns}%`, top: `${100 * place[0] / rows}%`, width: `${100 / columns}%`, height: `${100 / rows}%` });
  const field = fields.get(layer.outputs[0]);
  $("field").textContent = field ? `It depends on ${field.high[0] - field.low[0] + 1} \u00d7 ${field.high[1] - field.low[1] + 1} pixels of the image (its receptive field, outlined there).` : "It depends on the whole image.";
  $("products").replaceChildren(...explained());
  drawOverlay();
}

function explained() {
  const [input] = layer.inputs, x = values.get(input), weights = constants.get(layer.inputs[1]);
  const bias = constants.get(layer.inputs[2])?.data;
  if (layer.op === "Conv") return explainConv(x, weights, bias ? bias[map] : 0);
  if (layer.op.endsWith("Pool")) return explainPool(x);
  if (layer.op === "Gemm") return explainProduct(x, weights, bias ? bias[place[1]] : 0);
  const terms = layer.inputs.filter((name) => !constants.has(name) && mapsOf(name).data.length === mapsOf(layer.outputs[0]).data.length);
  const { rows, columns } = mapsOf(layer.outputs[0]), index = (map * rows + place[0]) * columns + place[1];
  return [element("p", `${layer.op} of ${terms.map((name) => `${number(values.get(name).data[index])} (${name})`).join(" and ") || "the layer before"}.`)];
}

function windowOf(x, channel) {
  const a = layer.attributes, [kh, kw] = a.kernel_shape, [dy, dx] = a.dilations || [1, 1], [, , h, w] = x.shape;
  return Array.from({ length: kh }, (_, ky) => Array.from({ length: kw }, (_, kx) => {
    const y = place[0] * a.strides[0] - a.pads[0] + ky * dy, z = place[1] * a.strides[1] - a.pads[1] + kx * dx;
    return y < 0 || z < 0 || y >= h || z >= w ? null : x.data[(channel * h + y) * w + z];
  }));
}

function grid(caption, rows, text = (v) => (v === null ? "pad" : number(v))) {
  const table = element("table", "", { className: "grid-table" }), limit = Math.max(...rows.flat().map((v) => Math.abs(v ?? 0)), 1e-9);
  table.append(element("caption", caption));
  for (const row of rows) {
    const line = element("tr");
    for (const v of row) {
      const cell = element("td", text(v));
      if (v) cell.style.background = `rgba(${v > 0 ? "213, 94, 0" : "0, 114, 178"}, ${0.45 * Math.abs(v) / limit})`;
      line.append(cell);
    }
    table.append(line);
  }
  return table;
}

function explainConv(x, weights, bias) {
  const [outputs, inner, kh, kw] = weights.shape, first = Math.floor(map / (outputs / layer.attributes.group)) * inner;
  const kernel = (c) => Array.from({ length: kh }, (_, y) => Array.from(weights.data.subarray(((map * inner + c) * kh + y) * kw, ((map * inner + c) * kh + y + 1) * kw)));
  const parts = Array.from({ length: inner }, (_, c) => {
    const window = windowOf(x, first + c), k = kernel(c), products = window.map((row, i) => row.map((v, j) => (v ?? 0) * k[i][j]));
    return { channel: first + c, window, kernel: k, products, sum: products.flat().reduce((a, b) => a + b, 0) };
  }).sort((a, b) => Math.abs(b.sum) - Math.abs(a.sum));
  const total = parts.reduce((sum, part) => sum + part.sum, bias), [top] = parts;
  const terms = parts.slice(0, 6).map((part) => [part.sum, `channel ${part.channel + 1}`]);
  if (inner > 6) terms.push([parts.slice(6).reduce((sum, part) => sum + part.sum, 0), inner > 7 ? `${inner - 6} others` : "the other"]);
  terms.push([bias, "bias"]);
  const grids = element("div", "", { className: "grids" });
  grids.append(grid("window", top.window), element("span", "\u00d7"), grid("weights", top.kernel), element("span", "="), grid("products", top.products));
  return [element("p", `${sumOf(terms)} = ${number(total)}`),
    element("p", `The strongest input channel here is ${top.channel + 1}, whose ${kh * kw} products sum to ${number(top.sum)}:`), grids];
}

// Pairs of a number and its name as a sum: '2 (a) - 1 (b)'.
function sumOf(terms) {
  return terms.map(([x, name], i) => `${i === 0 ? (x < 0 ? "\u2212" : "") : x < 0 ? " \u2212 " : " + "}${number(Math.abs(x))} (${name})`).join("");
}

function explainPool(x) {
  const window = windowOf(x, map), inside = window.flat().filter((v) => v !== null);
  const told = layer.op === "MaxPool" ? `The largest of the window is ${number(Math.max(...inside))}.` : `The mean of the window is ${number(inside.reduce((a, b) => a + b, 0) / window.flat().length)}.`;
  const grids = element("div", "", { className: "grids" });
  grids.append(grid("window", window));
  return [element("p", told), grids];
}

function explainProduct(x, weights, bias) {
  const column = place[1], columns = weights.shape[1];
  const parts = [...x.data].map((v, i) => ({ i, v, w: weights.data[i * columns + column] })).sort((a, b) => Math.abs(b.v * b.w) - Math.abs(a.v * a.w));
  const total = parts.reduce((sum, { v, w }) => sum + v * w, bias);
  return [element("p", `${x.data.length} products and the bias ${number(bias)} sum to ${number(total)}. The strongest:`),
    grid("value \u00d7 weight = product", parts.slice(0, 8).map(({ v, w }) => [v, w, v * w]))];
}

function drawOverlay() {
  const box = $("receptive"), field = layer && fields.get(layer.outputs[0]);
  const span = (axis) => field ? [field.jump[axis] * place[axis] + field.low[axis], field.high[axis] - field.low[axis] + 1] : [0, network.shape[axis]];
  const [[top, h], [left, w]] = [span(0), span(1)];
  const clip = (start, size, limit) => [Math.max(0, start), Math.max(0, Math.min(limit, start + size) - Math.max(0, start))];
  const [y, dy] = clip(top, h, HEIGHT), [z, dx] = clip(left, w, WIDTH);
  Object.assign(box.style, { top: `${100 * y / HEIGHT}%`, left: `${100 * z / WIDTH}%`, width: `${100 * dx / WIDTH}%`, height: `${100 * dy / HEIGHT}%` });
  const square = $("square");
  square.hidden = !hidden;
  if (hidden) Object.assign(square.style, { top: `${100 * hidden[0] / HEIGHT}%`, left: `${100 * hidden[1] / WIDTH}%`, width: `${100 * side() / WIDTH}%`, height: `${100 * side() / HEIGHT}%` });
}

$("layers").addEventListener("change", showLayer);
$("more").addEventListener("click", () => { shown = Infinity; showLayer(); });
$("large").addEventListener("pointermove", choose);
$("large").addEventListener("pointerdown", choose);
function choose(event) {
  if (event.type === "pointermove" && !(event.buttons & 1)) return;
  const box = $("large").getBoundingClientRect(), { rows, columns } = mapsOf(layer.outputs[0]);
  const inside = (part, size) => Math.max(0, Math.min(size - 1, Math.floor(part * size)));
  place = [inside((event.clientY - box.top) / box.height, rows), inside((event.clientX - box.left) / box.width, columns)];
  showPlace();
}
$("large").addEventListener("keydown", (event) => {
  const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }, move = moves[event.key];
  if (!move) return;
  event.preventDefault();
  place = place.map((c, axis) => Math.max(0, c + move[axis]));
  showPlace();
});

drawExample();
values = compute(graph, currentImage());
listLayers();
predict();
