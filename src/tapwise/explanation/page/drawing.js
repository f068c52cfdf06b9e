// The page's figures: read from the twin, laid out by layout.json; no convolution arithmetic here.
import { cone, feeds, outputLength, receptiveField, response, source, unread, windowTaps } from "./convolution.js";

const SVG = "http://www.w3.org/2000/svg";
let drawings = 0;

export function element(name, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// A number in few characters, for a cell.
export function short(value) {
  if (!Number.isFinite(value)) return String(value).replace("Infinity", "inf");
  if (Number.isInteger(value) && Math.abs(value) < 1e5) return String(value);
  if (Math.abs(value) >= 0.01 && Math.abs(value) < 100) return value.toFixed(2);
  return value.toExponential(0).replace("+", "");
}

export class Canvas {
  constructor(layout, width) {
    this.layout = layout;
    this.width = width;
    this.height = layout.margin;
    drawings += 1;
    this.hatch = `tw-hatch-${drawings}`;
    this.parts = [];
  }

  add(node) { this.parts.push(node); return node; }

  text(x, y, content, kind = "", anchor = "middle") {
    const node = element("text", { x: x.toFixed(1), y: y.toFixed(1), class: kind, "text-anchor": anchor });
    node.textContent = content;
    return this.add(node);
  }

  line(x1, y1, x2, y2, kind = "link", data = undefined) {
    return this.add(element("line", { x1: x1.toFixed(1), y1: y1.toFixed(1), x2: x2.toFixed(1), y2: y2.toFixed(1), class: kind, "data-link": data }));
  }

  // A cell with a number in it; with a key, one that can be pointed at, focused and activated.
  cell(x, y, width, kind, content, label, key) {
    const height = this.layout.row;
    const rect = element("rect", { x: (x + 1).toFixed(1), y: y.toFixed(1), width: Math.max(width - 2, 1).toFixed(1), height, rx: 3, class: kind });
    if (kind === "pad") rect.style.fill = `url(#${this.hatch})`;
    const group = element("g", key ? { "data-key": key, role: "button", tabindex: "-1", "aria-label": label } : {}, rect);
    if (label) { const title = element("title"); title.textContent = label; group.append(title); }
    if (content !== "") {
      const text = element("text", { x: (x + width / 2).toFixed(1), y: (y + height / 2 + 5).toFixed(1), class: "number", "text-anchor": "middle" });
      if (content.length * 7.8 > width - 4) { text.setAttribute("textLength", (width - 6).toFixed(1)); text.setAttribute("lengthAdjust", "spacingAndGlyphs"); }
      text.textContent = content;
      group.append(text);
    }
    return this.add(group);
  }

  svg(label) {
    const pattern = element("pattern", { id: this.hatch, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, element("line", { class: "hatch", x1: 0, y1: 0, x2: 0, y2: 6 }));
    return element("svg", { class: "tw", xmlns: SVG, viewBox: `0 0 ${this.width} ${Math.ceil(this.height)}`, width: this.width, height: Math.ceil(this.height), role: "group", "aria-label": label },
      element("defs", {}, pattern), element("rect", { class: "page", width: "100%", height: "100%" }), ...this.parts);
  }
}

// Which positions are shown, and where: as many columns as fit, around one output's window.
class Axis {
  constructor(c, layout, width, output) {
    const g = c.geometry;
    this.c = c;
    this.spread = g.transposed ? g.stride : 1;
    this.stride = g.transposed ? 1 : g.stride;
    this.shift = g.transposed ? g.left : 0;
    const left = g.transposed ? Math.min(g.left, c.length * g.stride) : g.left;
    const right = g.transposed ? 0 : g.right;
    const low = Math.min(0, -left);
    const high = Math.max((c.length - 1) * this.spread - this.shift + right, (c.outputs - 1) * this.stride);
    const room = width - 2 * layout.margin - layout.label;
    const fitting = Math.max(5, Math.min(layout.columns, Math.floor(room / 36)));
    this.columns = Math.min(high - low + 1, fitting);
    this.cell = Math.min(layout.cell, room / this.columns);
    const window = windowTaps(g, output).map(([p]) => p * this.spread - this.shift);
    const middle = window.length ? (window[0] + window[window.length - 1]) / 2 : output * this.stride;
    const near = Math.round(Math.max(Math.min(middle, output * this.stride + this.columns / 2 - 1), output * this.stride - this.columns / 2 + 1) - (this.columns - 1) / 2);
    this.first = Math.max(low, Math.min(near, high - this.columns + 1));
    this.left = layout.margin + layout.label;
    this.inputs = [];
    const from = g.transposed ? 0 : -left;
    const until = c.length + right - 1;
    const start = Math.max(from, Math.ceil((this.first + this.shift) / this.spread));
    for (let p = start; p <= until && this.shows(p * this.spread - this.shift); p += 1) this.inputs.push(p);
    this.outputs = [];
    for (let i = Math.max(0, Math.ceil(this.first / this.stride)); i < c.outputs && this.shows(i * this.stride); i += 1) this.outputs.push(i);
    this.before = this.first > low;
    this.after = this.first + this.columns - 1 < high;
  }

  shows(column) { return column >= this.first && column < this.first + this.columns; }
  inputX(p) { return this.x(p * this.spread - this.shift); }
  outputX(i) { return this.x(i * this.stride); }
  x(column) { return this.left + (column - this.first) * this.cell; }
  middle(x) { return x + this.cell / 2; }
}

function inputRow(canvas, axis, row, input, y) {
  const { c } = axis;
  const g = c.geometry;
  const end = c.length - unread(g, c.length);
  const cheap = g.mode === "zeros" || g.left + g.right < 2000;
  for (const p of axis.inputs) {
    const inside = p >= 0 && p < c.length;
    const from = source(g, p, c.length);
    const value = from === null ? 0 : c.state.x[input][from];
    const skipped = inside && (cheap ? feeds(g, p, c.length).length === 0 : p >= end);
    const kind = inside ? (skipped ? "unread" : "input") : "pad";
    const where = inside ? `input ${p}` : from === null ? `padding at ${p}, zero` : `padding at ${p}, a copy of input ${from}`;
    const label = `${where}${c.state.x.length > 1 ? `, channel ${input}` : ""}: ${value}${kind === "unread" ? ", not read by any window" : ""}`;
    canvas.cell(axis.inputX(p), y, axis.cell, kind, short(value), label, inside || from !== null ? `x:${input}:${from}:${p}` : undefined);
    if (row === 0 || inside) canvas.text(axis.middle(axis.inputX(p)), y + canvas.layout.row + 12, String(p), "index");
  }
  more(canvas, axis, y);
}

function more(canvas, axis, y, before = axis.before, after = axis.after) {
  if (before) canvas.text(axis.left - 10, y + 21, "…", "note");
  if (after) canvas.text(axis.x(axis.first + axis.columns) + 9, y + 21, "…", "note");
}

// The samples, the taps over one window, the products and the outputs. Returns {svg}.
export function drawWindow(c, layout, width, chosen) {
  const canvas = new Canvas(layout, width);
  const axis = new Axis(c, layout, width, chosen.output);
  const step = c.step(chosen.channel, chosen.output);
  const { row: height, margin, rows: most } = layout;
  const seen = step.positions.filter((p) => axis.inputs.includes(p)).length;
  const several = step.rows.length > 1;
  let y = canvas.height;
  let bottom = y;
  step.rows.slice(0, most).forEach((row, r) => {
    const name = several || c.state.x.length > 1 ? ` ${row.input}` : "";
    canvas.text(margin, y + 21, "taps", "", "start");
    canvas.text(margin, y + height + 35, `input${name}`, "", "start");
    canvas.text(margin, y + 2 * height + 50, "products", "", "start");
    if (several) canvas.text(margin, y + 2 * height + 66, `add up to ${short(row.products.reduce((a, b) => a + b, 0))}`, "index", "start");
    step.positions.forEach((p, n) => {
      if (!axis.inputs.includes(p)) return;
      const x = axis.inputX(p);
      const [outer, inner] = c.place(chosen.channel, r);
      canvas.cell(x, y, axis.cell, "tap", short(row.taps[n]), `tap ${step.taps[n]}${several ? `, input channel ${row.input}` : ""}: ${row.taps[n]}`, `w:${outer}:${inner}:${step.taps[n]}:${r}`);
      canvas.line(axis.middle(x), y + height, axis.middle(x), y + height + 14, "link strong");
      canvas.cell(x, y + 2 * height + 34, axis.cell, "product", short(row.products[n]), `${row.values[n]} times ${row.taps[n]} is ${row.products[n]}`);
    });
    inputRow(canvas, axis, r, row.input, y + height + 14);
    bottom = y + 3 * height + 34;
    y = bottom + 14;
  });
  const notes = [];
  if (several) notes.push(`output ${chosen.output} is the sum of ${step.rows.length < c.state.x.length ? `its group's ${step.rows.length}` : `all ${step.rows.length}`} input channels' products${step.bias === null ? "" : " and the bias"}`);
  if (step.rows.length > most) notes.push(`… ${step.rows.length - most} more input channels of this group are added to the same sum`);
  if (seen < step.positions.length) notes.push(`${step.positions.length - seen} of the ${step.positions.length} taps lie outside this picture`);
  const outputsY = y + 34;
  if (axis.outputs.includes(chosen.output)) {
    for (const p of step.positions) if (axis.inputs.includes(p)) canvas.line(axis.middle(axis.inputX(p)), bottom, axis.middle(axis.outputX(chosen.output)), outputsY, "link", `o:${chosen.output}`);
  }
  const channels = [chosen.channel, ...Array.from({ length: c.channels }, (_, o) => o).filter((o) => o !== chosen.channel)].slice(0, most + 1).sort((a, b) => a - b);
  channels.forEach((channel, n) => {
    const top = outputsY + n * (height + 20);
    canvas.text(margin, top + 21, c.channels > 1 ? `output ${channel}` : "output", "", "start");
    for (const i of axis.outputs) {
      const value = c.value(channel, i);
      const mine = channel === chosen.channel && i === chosen.output;
      const cell = canvas.cell(axis.outputX(i), top, axis.cell, "output", short(value), `output ${i}${c.channels > 1 ? `, channel ${channel}` : ""}: ${value}`, `y:${channel}:${i}`);
      if (mine) { cell.classList.add("lit"); cell.setAttribute("aria-pressed", "true"); }
      canvas.text(axis.middle(axis.outputX(i)), top + height + 12, String(i), "index");
    }
    more(canvas, axis, top, axis.outputs[0] > 0, axis.outputs[axis.outputs.length - 1] < c.outputs - 1);
    canvas.height = top + height + 22;
  });
  if (c.channels > channels.length) notes.push(`… ${c.channels - channels.length} more output channels`);
  for (const note of notes) {
    canvas.text(axis.left, canvas.height + 8, note, "note", "start");
    canvas.height += 20;
  }
  return { svg: canvas.svg("The taps over one window, the products and the outputs"), axis, bottom, outputsY };
}

// What a cell is tied to: the keys to light, and the lines [input, output] to draw.
export function ties(c, key, axis) {
  const [kind, a, b, k] = key.split(":");
  const g = c.geometry;
  const keys = new Set([key]);
  const lines = [];
  const shownInputs = new Set(axis.inputs);
  if (kind === "y") {
    const step = c.step(Number(a), Number(b));
    step.positions.forEach((p, n) => {
      for (const row of step.rows) keys.add(`x:${row.input}:${step.sources[n]}:${p}`);
      if (shownInputs.has(p)) lines.push([p, Number(b)]);
    });
  } else if (kind === "x") {
    const fed = feeds(g, Number(b), c.length);
    const group = Math.floor(Number(a) / c.inGroup);
    for (const i of fed) {
      for (let o = group * c.outGroup; o < (group + 1) * c.outGroup; o += 1) keys.add(`y:${o}:${i}`);
      if (axis.outputs.includes(i)) for (const [p] of windowTaps(g, i)) if (shownInputs.has(p) && source(g, p, c.length) === Number(b)) lines.push([p, i]);
    }
    for (const p of axis.inputs) if (source(g, p, c.length) === Number(b)) keys.add(`x:${a}:${b}:${p}`);
  } else {
    const [outer, inner] = [Number(a), Number(b)];
    const input = g.transposed ? outer : c.inputs(outer)[inner];
    const channel = g.transposed ? Math.floor(outer / c.inGroup) * c.outGroup + inner : outer;
    for (const i of axis.outputs) {
      for (const [p, tap] of windowTaps(g, i)) {
        if (tap !== Number(k) || !shownInputs.has(p)) continue;
        lines.push([p, i]);
        const from = source(g, p, c.length);
        keys.add(`x:${input}:${from}:${p}`);
        keys.add(`y:${channel}:${i}`);
      }
    }
  }
  return { keys, lines };
}

// The whole signal, small: the least and the most of each stretch, and where the window stands.
export function drawOverview(c, layout, width, channel, output, extremes) {
  const canvas = new Canvas(layout, width);
  const height = 46;
  const { least, most } = extremes;
  const scale = (v) => 4 + (height - 8) * (1 - (v - Math.min(...least)) / (Math.max(...most) - Math.min(...least) || 1));
  const room = width - 2 * layout.margin;
  const top = least.map((_, n) => `${(layout.margin + (n + 0.5) * room / least.length).toFixed(1)},${scale(most[n]).toFixed(1)}`);
  const under = least.map((_, n) => `${(layout.margin + (n + 0.5) * room / least.length).toFixed(1)},${(scale(least[n]) + 0.6).toFixed(1)}`).reverse();
  canvas.add(element("polygon", { points: [...top, ...under].join(" "), class: "curve" }));
  const at = c.outputs > 1 ? output / (c.outputs - 1) : 0;
  canvas.line(layout.margin + at * room, 0, layout.margin + at * room, height, "link strong");
  canvas.height = height;
  return canvas.svg(`All ${c.length} samples of channel ${channel}`);
}

// Which output channels read which input channels, in blocks by group.
export function drawChannels(c, layout, width) {
  const canvas = new Canvas(layout, width);
  const [ins, outs] = [Math.min(c.state.x.length, 32), Math.min(c.channels, 32)];
  const size = Math.max(9, Math.min(30, (width - 2 * layout.margin - 130) / ins));
  const [x0, y0] = [layout.margin + 110, canvas.height + 36];
  canvas.text(x0, canvas.height + 14, `${c.state.x.length} input channels`, "note", "start");
  for (let o = 0; o < outs; o += 1) {
    if (size > 13 || o % 4 === 0) canvas.text(x0 - 8, y0 + o * size + size / 2 + 5, `output ${o}`, "index", "end");
    const read = c.inputs(o);
    for (let i = 0; i < ins; i += 1) {
      const used = read.includes(i);
      const rect = element("rect", { x: (x0 + i * size).toFixed(1), y: (y0 + o * size).toFixed(1), width: (size - 2).toFixed(1), height: (size - 2).toFixed(1), rx: 2, class: used ? "tap" : "hole" });
      const title = element("title");
      title.textContent = used ? `output ${o} reads input ${i} with ${c.geometry.kernelSize} taps` : `output ${o} doesn't read input ${i}`;
      rect.append(title);
      canvas.add(rect);
    }
  }
  for (let i = 0; i < ins; i += size > 17 ? 1 : 4) canvas.text(x0 + i * size + size / 2, y0 - 6, String(i), "index");
  canvas.height = y0 + outs * size + 12;
  if (ins < c.state.x.length || outs < c.channels) { canvas.text(x0, canvas.height + 10, "… the first 32 of each are shown", "note", "start"); canvas.height += 24; }
  return canvas.svg("Which output channel reads which input channels");
}

// One output of a stack and everything it reads, layer by layer; holes stay empty, the future is marked.
export function drawCone(geometries, layout, width, output) {
  const canvas = new Canvas(layout, width);
  const levels = cone(geometries, output).reverse();
  const field = receptiveField(geometries);
  const strides = [1];
  for (const g of geometries) strides.push(strides[strides.length - 1] * g.stride);
  const now = output * field.stride;
  const low = Math.min(levels[0][0], now);
  const high = Math.max(levels[0][levels[0].length - 1], now);
  const room = width - 2 * layout.margin - layout.label;
  const size = Math.min(26, room / (high - low + 1));
  const x = (position, level) => layout.margin + layout.label + (position * strides[level] - low + 0.5) * size;
  const y = (level) => canvas.layout.margin + 22 + (levels.length - 1 - level) * 62;
  levels.forEach((read, level) => {
    if (level === 0) return;
    const g = geometries[level - 1];
    for (const i of read) for (const [p] of windowTaps(g, i)) canvas.line(x(i, level), y(level) + 8, x(p, level - 1), y(level - 1) - 8);
  });
  levels.forEach((read, level) => {
    canvas.text(layout.margin, y(level) + 5, level ? `layer ${level}` : "input", "", "start");
    const shown = new Set(read);
    const last = Math.floor((high - 0) / strides[level]);
    const first = Math.ceil(low / strides[level]);
    if (size * strides[level] >= 5) {
      for (let p = first; p <= last; p += 1) {
        const future = level === 0 && p > now;
        const kind = shown.has(p) ? (future ? "leak" : level === levels.length - 1 ? "output" : level ? "product" : "input") : "hole";
        const side = Math.min(16, size * strides[level] - 2);
        const rect = element("rect", { x: (x(p, level) - side / 2).toFixed(1), y: y(level) - 8, width: side.toFixed(1), height: 16, rx: 3, class: kind });
        const title = element("title");
        title.textContent = `${level ? `layer ${level}` : "input"} ${p}${shown.has(p) ? "" : ": not read, a hole"}${future ? ": in the future" : ""}`;
        rect.append(title);
        canvas.add(rect);
      }
    } else for (const p of read) canvas.line(x(p, level), y(level) - 8, x(p, level), y(level) + 8, level === 0 && p > now ? "leak" : "curve");
  });
  const bottom = y(0) + 14;
  canvas.line(x(now, 0), bottom, x(now, 0), bottom + 12, "link strong");
  canvas.text(x(now, 0), bottom + 26, `now: input ${now}`, "index");
  canvas.height = bottom + 36;
  return canvas.svg("What one output of the stack reads, layer by layer");
}

// What one sample of 1 becomes: each tap at the time when it comes out; those before now are marked.
function impulse(canvas, taps, g, left, room) {
  const top = canvas.height + 4;
  const height = 70;
  const times = taps.map((_, k) => g.left - k * g.dilation);
  const [first, last] = [Math.min(0, ...times), Math.max(0, ...times)];
  const finite = taps.map((tap) => (Number.isFinite(tap) ? tap : 0));
  const [low, high] = [Math.min(0, ...finite), Math.max(0, ...finite)];
  const y = (value) => top + height * (1 - (value - low) / (high - low || 1));
  const x = (time) => left + 20 + (time - first) * (room - 40) / Math.max(last - first, 1);
  canvas.text(canvas.layout.margin, top + 12, "impulse", "", "start");
  canvas.text(canvas.layout.margin, top + 29, "response", "note", "start");
  canvas.line(left, y(0), left + room, y(0), "axis");
  finite.forEach((tap, k) => {
    canvas.line(x(times[k]), y(0), x(times[k]), y(tap), "curve");
    const dot = element("rect", { x: (x(times[k]) - 3).toFixed(1), y: (y(tap) - 3).toFixed(1), width: 6, height: 6, rx: 3, class: times[k] < 0 ? "leak" : "tap" });
    const title = element("title");
    title.textContent = `tap ${k}, ${times[k]} samples later: ${taps[k]}`;
    dot.append(title);
    canvas.add(dot);
  });
  for (const time of new Set([first, 0, last])) canvas.text(x(time), top + height + 16, time === 0 ? "now" : time > 0 ? `${time} later` : `${-time} ahead`, "index");
  canvas.height += 104;
}

// Impulse response, magnitude and delay of one filter.
export function drawResponse(taps, g, layout, width) {
  if (g.transposed) throw new Error("a transposed convolution has no such response");
  const canvas = new Canvas(layout, width);
  const rows = response(taps, g.dilation, g.left);
  const room = width - 2 * layout.margin - layout.label;
  const left = layout.margin + layout.label;
  const plot = (title, unit, values, top, height, low, high) => {
    canvas.text(layout.margin, top + 4, title, "note", "start");
    canvas.text(layout.margin, top + 21, unit, "note", "start");
    for (const share of [0, 0.5, 1]) {
      const at = top + height * (1 - share);
      canvas.line(left, at, left + room, at, "grid");
      canvas.text(left - 6, at + 4, short(low + (high - low) * share), "index", "end");
    }
    let path = "";
    values.forEach((value, n) => {
      if (Number.isFinite(value)) path += `${path && Number.isFinite(values[n - 1]) ? "L" : "M"}${(left + room * n / (values.length - 1)).toFixed(1)} ${(top + height * (1 - (value - low) / (high - low || 1))).toFixed(1)}`;
    });
    canvas.add(element("path", { d: path, class: "curve" }));
  };
  impulse(canvas, taps, g, left, room);
  const peak = Math.max(...rows.map((row) => row.magnitude), 1e-12);
  plot("magnitude", "out / in", rows.map((row) => row.magnitude), canvas.height + 6, 120, 0, peak);
  const clear = rows.map((row) => (row.magnitude > peak * 1e-3 ? row.delay : NaN));
  const known = clear.filter(Number.isFinite);
  const [low, high] = known.length ? [Math.min(0, ...known), Math.max(1, ...known)] : [0, 1];
  plot("delay", "samples", clear, canvas.height + 158, 80, low, high);
  for (const share of [0, 0.25, 0.5, 0.75, 1]) canvas.text(left + room * share, canvas.height + 256, `${share / 2}`, "index");
  canvas.text(left + room / 2, canvas.height + 274, "frequency, as a share of the sampling rate", "note");
  canvas.height += 286;
  return canvas.svg("Magnitude and delay of the taps over frequency");
}

export { outputLength };
