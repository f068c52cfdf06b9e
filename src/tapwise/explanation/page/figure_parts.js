// What the figures of one step share: which positions are shown and where, rows of cells, and the way of a sum.
import { feeds, source, unread, windowTaps } from "./convolution.js";
import { short } from "./numbers.js";
import { phrase } from "./words.js";

// The columns that are shown: as many as fit, around one output's window. A column is a position of the input, or of
// the output where the convolution is transposed.
export class Axis {
  // `first` is the first column that was shown before: it stays where the window still lies within.
  constructor(c, canvas, output, { first = null, keep = false, right = 0 } = {}) {
    const g = c.geometry;
    this.c = c;
    this.spread = g.transposed ? g.stride : 1;
    this.stride = g.transposed ? 1 : g.stride;
    this.shift = g.transposed ? g.left : 0;
    const last = (c.length - 1) * this.spread - this.shift + (g.transposed ? g.effective - 1 : g.right);
    const low = Math.min(0, -g.left);
    const high = Math.max(last, (c.outputs - 1) * this.stride);
    const available = canvas.width - 2 * canvas.margin - canvas.label - right;
    const at = output * this.stride;
    const window = windowTaps(g, output).map(([p]) => p * this.spread - this.shift);
    const from = Math.min(at, ...(g.transposed ? [] : window));
    const until = Math.max(at, ...(g.transposed ? [] : window));
    // Wide enough for numbers, but for a window that would not be seen whole.
    const wide = Math.min(until - from + 1, Math.floor(available / 32));
    const fitting = Math.max(4, Math.min(canvas.layout.columns, Math.max(Math.floor(available / 42), wide)));
    this.columns = Math.min(high - low + 1, fitting);
    this.cell = Math.min(canvas.layout.cell * 1.35, available / this.columns);
    this.left = canvas.margin + canvas.label;
    const stays = first !== null && (keep || (first <= from && until < first + this.columns));
    const middle = Math.max(Math.min((from + until) / 2, at + this.columns / 2 - 1), at - this.columns / 2 + 1);
    const wanted = stays ? first : Math.round(middle - (this.columns - 1) / 2);
    this.first = Math.max(low, Math.min(wanted, high - this.columns + 1));
    this.inputs = [];
    const start = Math.max(g.transposed ? 0 : -g.left, Math.ceil((this.first + this.shift) / this.spread));
    const end = c.length + (g.transposed ? 0 : g.right);
    for (let p = start; p < end && this.shows(p * this.spread - this.shift); p += 1) this.inputs.push(p);
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
  get end() {
    return this.x(this.first + this.columns);
  }
  middle(x) {
    return x + this.cell / 2;
  }
  // A span of columns, cut to those that are shown; null where none is.
  span(from, until) {
    const [a, b] = [Math.max(from, this.first), Math.min(until, this.first + this.columns - 1)];
    return a > b ? null : [this.x(a) + 2, this.x(b) + this.cell - 2, [from < a, until > b]];
  }
}

export function inputRow(canvas, axis, { input, first, y }) {
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
    const copied = from === null ? `padding at ${p}, zero` : `padding at ${p}, a copy of input ${from}`;
    const where = inside ? `input ${p}` : copied;
    const channel = c.state.x.length > 1 ? `, channel ${input}` : "";
    const label = `${where}${channel}: ${value}${kind === "unread" ? `, ${phrase("unread")}` : ""}`;
    const key = inside || from !== null ? `x:${input}:${from}:${p}` : undefined;
    canvas.cell(axis.inputX(p), y, axis.cell, kind, short(value), label, key);
    if (first || inside)
      canvas.text(axis.middle(axis.inputX(p)), y + canvas.layout.row + 12, inside ? String(p) : "pad", "index");
  }
  more(canvas, axis, y);
}

export function more(canvas, axis, y, before = axis.before, after = axis.after) {
  if (before) canvas.text(axis.left - 9, y + 21, "…", "note");
  if (after) canvas.text(axis.end + 8, y + 21, "…", "note");
}

// The output channels that are shown: the chosen one among the first few.
export function shownChannels(c, channel, most) {
  const others = Array.from({ length: Math.min(c.channels, most + 1) }, (_, o) => o).filter((o) => o !== channel);
  return [channel, ...others].slice(0, most).sort((a, b) => a - b);
}

// A row for each of those output channels; returns where each begins, and fills the notes about the rest.
export function outputRows(canvas, axis, channels, y, hides = () => false) {
  const { c } = axis;
  const g = c.geometry;
  const { row: height } = canvas.layout;
  const tops = {};
  let at = y;
  for (const channel of channels) {
    const top = canvas.name(at, c.channels > 1 ? `output ch. ${channel}` : "output", true);
    tops[channel] = top;
    for (const i of axis.outputs) {
      const hidden = hides(channel, i);
      const value = hidden ? phrase("asked") : c.value(channel, i);
      const label = `output ${i}${c.channels > 1 ? `, channel ${channel}` : ""}: ${value}`;
      canvas.cell(axis.outputX(i), top, axis.cell, "output", hidden ? value : short(value), label, `y:${channel}:${i}`);
      canvas.text(axis.middle(axis.outputX(i)), top + height + 12, String(i), "index");
    }
    if (g.transposed)
      for (const i of cut(axis)) {
        canvas.cell(axis.outputX(i), top, axis.cell, "unread", "", phrase("cut_output"));
        if (channel === channels[0]) canvas.text(axis.middle(axis.outputX(i)), top + height + 12, "cut", "index");
      }
    const before = axis.outputs[0] > 0 || (g.transposed && axis.before);
    const after = axis.outputs.at(-1) < c.outputs - 1 || (g.transposed && axis.after);
    more(canvas, axis, top, before, after);
    at = top + height + (canvas.isCompact ? 20 : 26);
  }
  canvas.height = at + 2;
  const rest = c.channels - channels.length;
  if (rest > 0) {
    const words = phrase("more_outputs", { n: rest });
    canvas.text(axis.left, canvas.height + 8, words, "note", "start");
    canvas.height += 22;
  }
  return tops;
}

// Columns that a transposed convolution makes and then cuts off, as the padding asks.
function cut(axis) {
  const g = axis.c.geometry;
  const end = (axis.c.length - 1) * g.stride + g.effective + g.outputPadding - g.left;
  const columns = Array.from({ length: axis.columns }, (_, n) => axis.first + n);
  return columns.filter((i) => (i < 0 || i >= axis.c.outputs) && i >= -g.left && i < end);
}

// What moves slides in from where the step before stood, unless the reader asked for less motion; names of rows stand.
export function slide({ moving, still }, before, now) {
  still.append(...moving.querySelectorAll(":scope > .name"));
  const far = Math.abs(now - before);
  if (before === null || far < 1 || far > 400 || !moving.animate) return;
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  const frames = [{ transform: `translateX(${before - now}px)` }, { transform: "none" }];
  moving.animate(frames, { duration: 180, easing: "ease-out" });
}
