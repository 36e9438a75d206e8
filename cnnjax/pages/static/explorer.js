"use strict";
// The page of a network: an image becomes a prediction, and each layer can be looked into. A second network, from
// another such page, can see the same image.

const $ = (id) => document.getElementById(id);
const HIDDEN = new Set(["Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Pad", "Slice", "Shape", "Expand", "Split"]);
const MAPS = 64; // shown at once
const pixels = $("pixels").getContext("2d", { willReadFrequently: true });
const networks = [networkOf(document)]; // at most two
const [HEIGHT, WIDTH, CHANNELS] = networks[0].shape;
let net = networks[0]; // whose layers are shown
let layer = null, map = 0, place = [0, 0], hidden = null, shown = MAPS;

// The network of a page such as this one; throws an error for another page.
function networkOf(page) {
  const data = JSON.parse(page.getElementById("graph").textContent);
  const graph = decode(data, page.getElementById("weights").textContent.trim());
  const constants = new Map(graph.constants);
  return {
    name: page.title, classes: data.classes, shape: data.shape, resize: data.resize, graph, constants,
    nodeOf: new Map(graph.nodes.map((node) => [node.outputs[0], node])),
    layers: graph.nodes.filter((node) => !HIDDEN.has(node.op) && !(node.op in { Sub: 1, Div: 1, Mul: 1 } && node.inputs[0] === "images")),
    fields: new Map(graph.nodes.map((node) => [node.outputs[0], node.field])), // null for the whole image
    values: null, // of its last image: name of a tensor -> {shape, data}
  };
}

const number = (x) => (Number.isInteger(x) ? String(x) : Math.abs(x) >= 1000 || Math.abs(x) < 0.001 ? x.toExponential(1) : x.toPrecision(3)).replace("-", "\u2212");
const element = (tag, text = "", properties = {}) => Object.assign(document.createElement(tag), { textContent: text }, properties);

// ------------------------------------------------------------------------------------------------------------- the image

// The image, with the gray square if there is one, as a network takes it: of its size, in color or gray.
function imageFor({ shape: [height, width, channels] }, square = hidden) {
  let from = pixels;
  if (height !== HEIGHT || width !== WIDTH) {
    from = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d", { willReadFrequently: true });
    from.imageSmoothingQuality = "high";
    from.drawImage(pixels.canvas, 0, 0, width, height);
  }
  const rgba = from.getImageData(0, 0, width, height).data, data = new Float32Array(height * width * channels);
  for (let i = 0; i < height * width; i++) {
    const [r, g, b] = rgba.subarray(4 * i, 4 * i + 3);
    if (channels === 3) data.set([r, g, b], 3 * i);
    else data.fill(Math.round(0.299 * r + 0.587 * g + 0.114 * b), channels * i, channels * (i + 1));
  }
  if (square) {
    const [top, bottom] = [square[0], square[0] + side()].map((y) => Math.round(Math.max(0, Math.min(HEIGHT, y)) * height / HEIGHT));
    const [left, right] = [square[1], square[1] + side()].map((x) => Math.round(Math.max(0, Math.min(WIDTH, x)) * width / WIDTH));
    for (let y = top; y < bottom; y++) data.fill(128, (y * width + left) * channels, (y * width + right) * channels);
  }
  return { shape: [1, height, width, channels], data };
}

function computeAll() {
  for (const each of networks) {
    const start = performance.now();
    each.values = compute(each.graph, imageFor(each));
    each.milliseconds = performance.now() - start;
  }
}

function showAll() {
  showPredictions();
  showLayer();
}

function predict() {
  computeAll();
  showAll();
}

// Indices of the classes, the most probable first.
const ranked = ({ values }) => {
  const chances = values.get("probabilities").data;
  return [...chances.keys()].sort((a, b) => chances[b] - chances[a]);
};
const percent = (chance) => `${(100 * chance).toFixed(1)} %`;

function showPredictions() {
  const answers = networks.map((each) => each.classes[ranked(each)[0]]);
  const same = new Set(answers).size === 1;
  $("answer").textContent = same ? answers[0] : answers.join(" or ");
  $("told").textContent = `${networks.length === 1 ? "" : same ? "The networks agree. " : "The networks disagree. "}${hidden ? "With the gray square on the image. " : ""}Computed in ${networks.map((each) => `${each.milliseconds.toFixed(0)} ms`).join(" and ")}.`;
  $("predictions").replaceChildren(...networks.map(predictionOf));
}

function predictionOf(each) {
  const chances = each.values.get("probabilities").data, logits = each.values.get("logits").data;
  const table = element("table"), head = element("tr"), body = element("tbody");
  head.append(element("th", "Class", { scope: "col", className: "text" }), element("th", "Probability", { scope: "col" }),
    element("th", "Logit", { scope: "col" }), element("td", "", { className: "bar" }));
  for (const index of ranked(each).slice(0, 5)) {
    const row = element("tr"), bar = element("td", "", { className: "bar" }), fill = element("span");
    fill.style.width = `${100 * chances[index]}%`;
    bar.append(fill);
    row.append(element("th", each.classes[index], { scope: "row", className: "text" }),
      element("td", percent(chances[index])), element("td", number(logits[index])), bar);
    body.append(row);
  }
  const header = element("thead");
  header.append(head);
  table.append(element("caption", networks.length === 1 ? "The most probable classes" : each.name), header, body);
  return table;
}

// A page of a network becomes the second network; anything else has to be a picture.
async function openFile(file) {
  const page = /\.html?$/i.test(file.name);
  try {
    await (page ? addNetwork(file) : showFile(file));
    $("trouble").textContent = "";
  } catch {
    $("trouble").textContent = page ? `${file.name} is not a network page written by cnnjax export.` : `${file.name} is not a picture that this browser can read.`;
  }
}

async function addNetwork(file) {
  const second = networkOf(new DOMParser().parseFromString(await file.text(), "text/html"));
  if (second.name === networks[0].name) second.name += ` (${file.name})`;
  networks[1] = second;
  $("network").replaceChildren(...networks.map(({ name }, i) => element("option", name, { value: i })));
  $("network-box").hidden = false;
  $("drops-box").hidden = true;
  net = networks[0];
  computeAll();
  listLayers();
  showAll();
}

// A photograph is cut to the middle as the evaluation does: the shorter side is scaled, then the center is taken.
async function showFile(file) {
  const picture = await createImageBitmap(file);
  const scale = (networks[0].resize || Math.min(HEIGHT, WIDTH)) / Math.min(picture.width, picture.height);
  const fit = Math.max(scale, HEIGHT / picture.height, WIDTH / picture.width);
  const [w, h] = [picture.width * fit, picture.height * fit];
  fillBlack(); // behind a transparent picture
  pixels.imageSmoothingQuality = "high";
  pixels.drawImage(picture, (WIDTH - w) / 2, (HEIGHT - h) / 2, w, h);
  predict();
}

function fillBlack() {
  pixels.fillStyle = "#000";
  pixels.fillRect(0, 0, WIDTH, HEIGHT);
}

function clear() {
  fillBlack();
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
    pixels.arc(x(0.47), y(0.29), x(0.18), -2.6, 1.4);
    pixels.arc(x(0.47), y(0.68), x(0.2), -1.4, 2.6);
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
    hidden = (hidden || [0, 0]).map((c, axis) => Math.max(0, Math.min([HEIGHT, WIDTH][axis] - side(), c + move[axis] * step)));
  } else return;
  event.preventDefault();
  soon();
});
$("side").addEventListener("input", () => { $("side-told").textContent = `${side()} pixels`; if (hidden) soon(); });
$("occlude").addEventListener("change", () => { hidden = null; soon(); });
$("clear").addEventListener("click", clear);
for (const id of ["file", "second"]) {
  $(id).addEventListener("change", (event) => event.target.files[0] && openFile(event.target.files[0]));
}
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) openFile(event.dataTransfer.files[0]);
});

$("where").addEventListener("click", async () => { // the occlusion maps: how much of the prediction each square takes away
  const figures = [];
  for (const each of networks) figures.push(occlusionMap(each, await drops(each)));
  $("where").textContent = "Where does it look?";
  $("drops-box").replaceChildren(...figures);
  $("drops-box").hidden = false;
});

// How much less probable the class of the whole image is with a gray square, for each place of the square.
async function drops(each) {
  const whole = compute(each.graph, imageFor(each, null)).get("probabilities").data;
  const best = whole.indexOf(Math.max(...whole)), step = Math.max(1, Math.round(side() / 2)), rows = [];
  for (let top = 0; top <= HEIGHT - side(); top += step) {
    const row = [];
    for (let left = 0; left <= WIDTH - side(); left += step) {
      row.push(whole[best] - compute(each.graph, imageFor(each, [top, left])).get("probabilities").data[best]);
    }
    rows.push(row);
    $("where").textContent = `Row ${rows.length} of ${Math.floor((HEIGHT - side()) / step) + 1} \u2026`;
    await new Promise((done) => setTimeout(done));
  }
  return { best, rows };
}

function occlusionMap(each, { best, rows }) {
  const figure = element("figure"), canvas = element("canvas", "", { className: "pixelated" });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "Map of how much each part of the image matters");
  paint(canvas, rows.flat(), rows[0].length, rows.length);
  const most = number(100 * Math.max(...rows.flat()));
  figure.append(canvas, element("figcaption", `${networks.length === 1 ? "How" : `${each.name}: how`} much less probable "${each.classes[best]}" is with a gray square of ${side()} pixels there: at most ${most} points less. Orange: less probable; blue: more.`));
  return figure;
}

// ------------------------------------------------------------------------------------------------------------ the layers

function listLayers() {
  $("layers").replaceChildren(...net.layers.map((node) => {
    const shape = net.values.get(node.outputs[0]).shape.slice(1);
    return element("option", `${node.outputs[0]}  (${shape.join(" \u00d7 ")})`, { value: node.outputs[0] });
  }));
  const first = net.layers.find((node) => node.op === "Conv") || net.layers[0];
  $("layers").value = first.outputs[0];
}

// The maps of a tensor of one image: [channels, rows, columns]; a vector is one row.
function mapsOf(name) {
  const { shape, data } = net.values.get(name), sizes = shape.slice(1);
  if (sizes.length === 3) return { channels: sizes[0], rows: sizes[1], columns: sizes[2], data };
  return { channels: 1, rows: 1, columns: data.length, data };
}

function showLayer() {
  const node = net.nodeOf.get($("layers").value);
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
  const field = net.fields.get(layer.outputs[0]);
  $("field").textContent = field ? `It depends on ${field.high[0] - field.low[0] + 1} \u00d7 ${field.high[1] - field.low[1] + 1} pixels of the image (its receptive field, outlined there).` : "It depends on the whole image.";
  $("products").replaceChildren(...explained());
  drawOverlay();
}

function explained() {
  const [input] = layer.inputs, x = net.values.get(input), weights = net.constants.get(layer.inputs[1]);
  const bias = net.constants.get(layer.inputs[2])?.data;
  if (layer.op === "Conv") return explainConv(x, weights, bias ? bias[map] : 0);
  if (layer.op.endsWith("Pool")) return explainPool(x);
  if (layer.op === "Gemm") return explainProduct(x, weights, bias ? bias[place[1]] : 0);
  const terms = layer.inputs.filter((name) => !net.constants.has(name) && mapsOf(name).data.length === mapsOf(layer.outputs[0]).data.length);
  const { rows, columns } = mapsOf(layer.outputs[0]), index = (map * rows + place[0]) * columns + place[1];
  return [element("p", `${layer.op} of ${terms.map((name) => `${number(net.values.get(name).data[index])} (${name})`).join(" and ") || "the layer before"}.`)];
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
  const box = $("receptive"), [height, width] = net.shape, field = layer && net.fields.get(layer.outputs[0]);
  const span = (axis) => field ? [field.jump[axis] * place[axis] + field.low[axis], field.high[axis] - field.low[axis] + 1] : [0, net.shape[axis]];
  const [[top, h], [left, w]] = [span(0), span(1)];
  const clip = (start, size, limit) => [Math.max(0, start), Math.max(0, Math.min(limit, start + size) - Math.max(0, start))];
  const [y, dy] = clip(top, h, height), [z, dx] = clip(left, w, width);
  Object.assign(box.style, { top: `${100 * y / height}%`, left: `${100 * z / width}%`, width: `${100 * dx / width}%`, height: `${100 * dy / height}%` });
  const square = $("square");
  square.hidden = !hidden;
  if (hidden) Object.assign(square.style, { top: `${100 * hidden[0] / HEIGHT}%`, left: `${100 * hidden[1] / WIDTH}%`, width: `${100 * side() / WIDTH}%`, height: `${100 * side() / HEIGHT}%` });
}

$("network").addEventListener("change", (event) => { net = networks[event.target.value]; listLayers(); showLayer(); });
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
computeAll();
listLayers();
showAll();
