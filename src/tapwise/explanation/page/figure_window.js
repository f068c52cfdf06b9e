// The figure of one window: samples, the taps over them, products, their sum and the outputs.
import { Canvas } from "./canvas.js";
import { Axis, inputRow, outputRows, shownChannels, slide } from "./figure_parts.js";
import { drawSumColumn, drawSumLine, goalOf } from "./figure_sums.js";
import { PrintedSum, short, sumOf } from "./numbers.js";
import { phrase, plural, written } from "./words.js";

// The samples and the outputs stand still; what belongs to a step is drawn by `show`, which may come often.
// Returns {svg, axis, channels, bottoms, tops, show(chosen)}; `first` and `keep` are the axis's, `channels` the output
// channels that are shown.
export function drawWindow(c, layout, width, chosen, options = {}) {
  const canvas = new Canvas(layout, width);
  const { row: height, rows: most } = layout;
  const inColumn = c.inGroup > 1 || c.state.bias !== null;
  const right = inColumn ? 88 : canvas.isCompact ? 12 : 16;
  const axis = new Axis(c, canvas, chosen.output, { ...options, right });
  lengthMarks(canvas, axis);
  const marksY = canvas.height + 38;
  let y = canvas.height + 44;
  const several = c.state.x.length > 1;
  const rows = c
    .inputs(chosen.channel)
    .slice(0, most)
    .map((input, r) => {
      const taps = y + canvas.head;
      const samples = canvas.name(taps + height + 10, several ? `input ch. ${input}` : "input");
      const products = canvas.name(samples + height + 18, "products");
      inputRow(canvas, axis, { input, first: r === 0, y: samples });
      y = products + height + 16;
      return { taps, samples, products };
    });
  const rest = c.inGroup - rows.length;
  const lines = inColumn ? [rest > 0, true, c.state.bias !== null].filter(Boolean).length + 1 : 2;
  const sumsY = y + 4;
  const outputsY = sumsY + lines * 24 + 4;
  const channels = options.channels || shownChannels(c, chosen.channel, most + 1);
  const tops = outputRows(canvas, axis, channels, outputsY, options.hides);
  const layers = canvas.stepLayers();
  let before = null;

  const show = (now, hidden = false) => {
    const step = c.step(now.channel, now.output);
    const sum = new PrintedSum(step.rows.flatMap((row) => row.products).concat(step.bias === null ? [] : [step.bias]));
    const shown = step.positions.map((p, n) => [p, n]).filter(([p]) => axis.inputs.includes(p));
    canvas.into(layers.moving, () => {
      step.rows
        .slice(0, most)
        .forEach((row, r) => windowRow(canvas, axis, { c, step, row, r, at: rows[r], now, shown, sum }));
      if (rows.length) stepMarks(canvas, axis, step, marksY, now.output);
    });
    canvas.into(layers.still, () => {
      sumsOfWindow(canvas, axis, { c, step, rows, shown, sum, y: sumsY, now, goal: goalOf(axis, tops, now), hidden });
    });
    slide(layers, before, axis.x(now.output * axis.stride));
    before = axis.x(now.output * axis.stride);
    return caption(c, step, sum, step.positions.length - shown.length);
  };
  const svg = canvas.svg(phrase("figure_window"));
  return { svg, axis, channels, bottoms: rows.map((row) => row.samples + height), tops, show };
}

// What is summed, in words that name the channel; what the picture leaves out.
export function caption(c, step, sum, hidden) {
  const words = phrase(c.channels > 1 ? "step_of_channel" : "step_is", { ...step, sum: sumWords(c, step) });
  const notes = [words];
  if (hidden) notes.push(phrase("hidden_taps", { n: hidden, taps: step.positions.length }));
  if (!sum.exact && sum.decimals !== null) notes.push(phrase("rounded", { n: sum.decimals, exact: written(step.sum) }));
  return notes.join(" ");
}

// What the sum adds, in words that name the channel.
function sumWords(c, step) {
  const bias = step.bias === null ? "" : phrase("sum_bias");
  const inputs = plural(step.positions.length, "input");
  if (c.geometry.transposed && c.inGroup === 1) return phrase("sum_spread", { inputs }) + bias;
  if (c.inGroup === 1) return phrase("sum_one") + bias;
  const all = c.inGroup === c.state.x.length;
  return phrase(all ? "sum_all" : "sum_group", { n: c.inGroup }) + bias;
}

function windowRow(canvas, axis, { c, step, row, r, at, now, shown, sum }) {
  const several = c.state.x.length > 1;
  const [outer, inner] = c.place(now.channel, r);
  canvas.movingName(at.taps - canvas.head, several || c.channels > 1 ? `weight[${outer}, ${inner}]` : "taps");
  for (const [p, n] of shown) {
    const x = axis.inputX(p);
    const label = `tap ${step.taps[n]}${several ? `, input channel ${row.input}` : ""}: ${row.taps[n]}`;
    const key = `w:${outer}:${inner}:${step.taps[n]}:${r}`;
    canvas.cell(x, at.taps, axis.cell, "tap", short(row.taps[n]), label, key);
    canvas.line(axis.middle(x), at.taps + canvas.layout.row, axis.middle(x), at.samples - canvas.head, "link strong");
    const product = `${row.values[n]} times ${row.taps[n]} is ${row.products[n]}`;
    canvas.cell(x, at.products, axis.cell, "product", printed(sum, row.products[n]), product);
  }
}

const printed = (sum, value) => (sum.decimals === null ? short(value) : sum.text(sum.units(value)));

// One input channel alone: a line. Several, or a bias: subtotals under one another.
function sumsOfWindow(canvas, axis, { c, step, rows, shown, now, ...how }) {
  const { sum } = how;
  const { row: height } = canvas.layout;
  if (c.inGroup === 1 && step.bias === null) {
    const units = step.rows[0].products.map((product) => sum.units(product));
    const xs = shown.map(([p]) => axis.middle(axis.inputX(p)));
    drawSumLine(canvas, { ...how, units, xs, bottom: rows[0].products + height });
    return;
  }
  const units = step.rows.map((row) => sum.total(row.products));
  const from = shown.length ? axis.inputX(shown.at(-1)[0]) + axis.cell : axis.left;
  const seen = rows.map((row, r) => ({ y: row.products + height / 2, units: units[r], from }));
  const more = [];
  const rest = units.slice(rows.length);
  if (rest.length) more.push({ units: sumOf(rest), label: phrase("more_inputs", { n: rest.length }) });
  if (step.bias !== null) more.push({ units: sum.units(step.bias), label: "bias" });
  const label = c.channels > 1 ? phrase("sum_of_channel", now) : "sum";
  drawSumColumn(canvas, { ...how, beside: axis.end, rows: seen, more, label });
}

// The length, and the padding beside it.
function lengthMarks(canvas, axis) {
  const { c } = axis;
  const g = c.geometry;
  const y = canvas.height + 14;
  const parts = [
    ["left", -g.left, -1, g.left],
    ["L", 0, c.length - 1, c.length],
    ["right", c.length, c.length + g.right - 1, g.right],
  ];
  for (const [symbol, from, until, count] of parts) {
    const span = count > 0 && axis.span(from, until);
    if (span) canvas.mark(symbol, span, y, markText(symbol, count, span[2].some(Boolean)));
  }
}

// A part that leaves the picture is said to.
function markText(symbol, count, isCut) {
  return `${symbol === "L" ? "L = " : `${symbol} `}${count}${isCut ? phrase("mark_part") : ""}`;
}

// Where kernel size, dilation and stride are in this step.
function stepMarks(canvas, axis, step, y, output) {
  const g = axis.c.geometry;
  const at = output * g.stride - g.left;
  const reach = axis.span(at, at + g.effective - 1);
  if (reach) canvas.mark("K", reach, y, phrase("mark_taps", { n: g.kernelSize }));
  // A line as long as `reach` from the first tap on, open where it leaves the picture.
  const along = (symbol, reach) => {
    const from = axis.span(at, at);
    if (from === null) return;
    const end = from[0] + reach * axis.cell;
    const span = [from[0], Math.min(end, axis.end), [false, end > axis.end]];
    canvas.mark(symbol, span, y, `${symbol} ${reach}`, "quiet");
  };
  if (g.kernelSize > 1) along("dilation", g.dilation);
  if (output + 1 < axis.c.outputs) along("stride", g.stride);
}
