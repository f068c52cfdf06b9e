// The figure of one window: samples, taps, products and outputs, and what a cell is tied to.
import { Canvas, element, short } from "./canvas.js";
import { phrase } from "./words.js";
import { feeds, source, unread, windowTaps } from "./convolution.js";

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
    const available = width - 2 * layout.margin - layout.label;
    const fitting = Math.max(5, Math.min(layout.columns, Math.floor(available / 36)));
    this.columns = Math.min(high - low + 1, fitting);
    this.cell = Math.min(layout.cell, available / this.columns);
    const window = windowTaps(g, output).map(([p]) => p * this.spread - this.shift);
    const middle = window.length ? (window[0] + window[window.length - 1]) / 2 : output * this.stride;
    const near = Math.round(
      Math.max(
        Math.min(middle, output * this.stride + this.columns / 2 - 1),
        output * this.stride - this.columns / 2 + 1,
      ) -
        (this.columns - 1) / 2,
    );
    this.first = Math.max(low, Math.min(near, high - this.columns + 1));
    this.left = layout.margin + layout.label;
    this.inputs = [];
    const from = g.transposed ? 0 : -left;
    const until = c.length + right - 1;
    const start = Math.max(from, Math.ceil((this.first + this.shift) / this.spread));
    for (let p = start; p <= until && this.shows(p * this.spread - this.shift); p += 1) this.inputs.push(p);
    this.outputs = [];
    for (let i = Math.max(0, Math.ceil(this.first / this.stride)); i < c.outputs && this.shows(i * this.stride); i += 1)
      this.outputs.push(i);
    this.before = this.first > low;
    this.after = this.first + this.columns - 1 < high;
  }

  shows(column) {
    return column >= this.first && column < this.first + this.columns;
  }
  inputX(p) {
    return this.x(p * this.spread - this.shift);
  }
  outputX(i) {
    return this.x(i * this.stride);
  }
  x(column) {
    return this.left + (column - this.first) * this.cell;
  }
  middle(x) {
    return x + this.cell / 2;
  }
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
    const where = inside
      ? `input ${p}`
      : from === null
        ? `padding at ${p}, zero`
        : `padding at ${p}, a copy of input ${from}`;
    const label = `${where}${c.state.x.length > 1 ? `, channel ${input}` : ""}: ${value}${kind === "unread" ? `, ${phrase("unread")}` : ""}`;
    canvas.cell(
      axis.inputX(p),
      y,
      axis.cell,
      kind,
      short(value),
      label,
      inside || from !== null ? `x:${input}:${from}:${p}` : undefined,
    );
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
    if (several)
      canvas.text(
        margin,
        y + 2 * height + 66,
        `add up to ${short(row.products.reduce((a, b) => a + b, 0))}`,
        "index",
        "start",
      );
    step.positions.forEach((p, n) => {
      if (!axis.inputs.includes(p)) return;
      const x = axis.inputX(p);
      const [outer, inner] = c.place(chosen.channel, r);
      canvas.cell(
        x,
        y,
        axis.cell,
        "tap",
        short(row.taps[n]),
        `tap ${step.taps[n]}${several ? `, input channel ${row.input}` : ""}: ${row.taps[n]}`,
        `w:${outer}:${inner}:${step.taps[n]}:${r}`,
      );
      canvas.line(axis.middle(x), y + height, axis.middle(x), y + height + 14, "link strong");
      canvas.cell(
        x,
        y + 2 * height + 34,
        axis.cell,
        "product",
        short(row.products[n]),
        `${row.values[n]} times ${row.taps[n]} is ${row.products[n]}`,
      );
    });
    inputRow(canvas, axis, r, row.input, y + height + 14);
    bottom = y + 3 * height + 34;
    y = bottom + 14;
  });
  const notes = [];
  if (several)
    notes.push(
      `output ${chosen.output} is the sum of ${step.rows.length < c.state.x.length ? `its group's ${step.rows.length}` : `all ${step.rows.length}`} input channels' products${step.bias === null ? "" : " and the bias"}`,
    );
  if (step.rows.length > most)
    notes.push(`… ${phrase("more_inputs", { n: step.rows.length - most })} are added to the same sum`);
  if (seen < step.positions.length)
    notes.push(phrase("hidden_taps", { n: step.positions.length - seen, taps: step.positions.length }));
  const outputsY = y + 34;
  if (axis.outputs.includes(chosen.output)) {
    for (const p of step.positions)
      if (axis.inputs.includes(p))
        canvas.line(
          axis.middle(axis.inputX(p)),
          bottom,
          axis.middle(axis.outputX(chosen.output)),
          outputsY,
          "link",
          `o:${chosen.output}`,
        );
  }
  const channels = [
    chosen.channel,
    ...Array.from({ length: c.channels }, (_, o) => o).filter((o) => o !== chosen.channel),
  ]
    .slice(0, most + 1)
    .sort((a, b) => a - b);
  channels.forEach((channel, n) => {
    const top = outputsY + n * (height + 20);
    canvas.text(margin, top + 21, c.channels > 1 ? `output ${channel}` : "output", "", "start");
    for (const i of axis.outputs) {
      const value = c.value(channel, i);
      const mine = channel === chosen.channel && i === chosen.output;
      const cell = canvas.cell(
        axis.outputX(i),
        top,
        axis.cell,
        "output",
        short(value),
        `output ${i}${c.channels > 1 ? `, channel ${channel}` : ""}: ${value}`,
        `y:${channel}:${i}`,
      );
      if (mine) {
        cell.classList.add("lit");
        cell.setAttribute("aria-pressed", "true");
      }
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
      if (axis.outputs.includes(i))
        for (const [p] of windowTaps(g, i))
          if (shownInputs.has(p) && source(g, p, c.length) === Number(b)) lines.push([p, i]);
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
  const scale = (v) =>
    4 + (height - 8) * (1 - (v - Math.min(...least)) / (Math.max(...most) - Math.min(...least) || 1));
  const available = width - 2 * layout.margin;
  const top = least.map(
    (_, n) => `${(layout.margin + ((n + 0.5) * available) / least.length).toFixed(1)},${scale(most[n]).toFixed(1)}`,
  );
  const under = least
    .map(
      (_, n) =>
        `${(layout.margin + ((n + 0.5) * available) / least.length).toFixed(1)},${(scale(least[n]) + 0.6).toFixed(1)}`,
    )
    .reverse();
  canvas.add(element("polygon", { points: [...top, ...under].join(" "), class: "curve" }));
  const at = c.outputs > 1 ? output / (c.outputs - 1) : 0;
  canvas.line(layout.margin + at * available, 0, layout.margin + at * available, height, "link strong");
  canvas.height = height;
  return canvas.svg(`All ${c.length} samples of channel ${channel}`);
}
