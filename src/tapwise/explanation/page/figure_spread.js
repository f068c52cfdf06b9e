// The figure of one output of a transposed convolution: inputs spread their taps, and overlaps add up.
import { Canvas, element } from "./canvas.js";
import { Axis, inputRow, outputRows, shownChannels, slide } from "./figure_parts.js";
import { drawSumColumn, drawSumLine, goalOf } from "./figure_sums.js";
import { caption } from "./figure_window.js";
import { PrintedSum, short, sumOf } from "./numbers.js";
import { phrase } from "./words.js";

const divisor = (a, b) => (b ? divisor(b, a % b) : a);
const ROWS = 5;

// As drawWindow; of several input channels, the first of the group is drawn, or the one of `row`.
export function drawSpread(c, layout, width, chosen, options = {}) {
  const canvas = new Canvas(layout, width);
  const g = c.geometry;
  const { row: height } = layout;
  const inColumn = c.inGroup > 1 || c.state.bias !== null;
  const row = Math.min(options.row || 0, c.inGroup - 1);
  const axis = new Axis(c, canvas, chosen.output, { ...options, right: inColumn ? 88 : canvas.isCompact ? 12 : 16 });
  const input = c.inputs(chosen.channel)[row];
  const several = c.state.x.length > 1;
  const marksY = canvas.height + 14;
  const samples = canvas.name(canvas.height + 20, several ? `input ch. ${input}` : "input");
  inputRow(canvas, axis, { input, first: true, y: samples });
  const taps = samples + height + 24 + canvas.head;
  // So many inputs reach an output at most.
  const reaching = Math.ceil((g.kernelSize * divisor(g.dilation, g.stride)) / g.stride);
  const spreads = [];
  let y = taps + height + 14;
  for (let n = 0; n < Math.min(ROWS, reaching); n += 1) {
    spreads.push(y + canvas.head);
    y = spreads[n] + height + 6;
  }
  const lines = inColumn ? [reaching > ROWS, c.inGroup > 1, c.state.bias !== null].filter(Boolean).length + 1 : 2;
  const sumsY = y + 8;
  const channels = options.channels || shownChannels(c, chosen.channel, layout.rows + 1);
  const tops = outputRows(canvas, axis, channels, sumsY + lines * 24 + 4, options.hides);
  const layers = canvas.stepLayers();
  let before = null;

  const show = (now, hidden = false) => {
    const step = c.step(now.channel, now.output);
    const mine = step.rows[row];
    const sum = new PrintedSum(step.rows.flatMap((one) => one.products).concat(step.bias === null ? [] : [step.bias]));
    const pairs = step.positions.map((p, n) => ({
      p,
      k: step.taps[n],
      value: mine.values[n],
      product: mine.products[n],
    }));
    const shown = pairs.slice(0, ROWS);
    canvas.into(layers.moving, () => {
      column(canvas, axis, now.output, taps - 4, sumsY);
      shown.forEach((pair, n) => {
        const start = pair.p * g.stride - g.left;
        const x = axis.middle(axis.x(start));
        if (axis.shows(start)) canvas.line(x, samples + height + 16, x, spreads[n], "link");
      });
      shown.forEach((pair, n) => spread(canvas, axis, { c, pair, now, row, y: spreads[n] }));
      if (pairs.length) {
        const over = pairs[0];
        laidTaps(canvas, axis, { c, pair: over, now, row, y: taps });
        const start = over.p * g.stride - g.left;
        const reach = axis.span(start, start + g.effective - 1);
        if (reach) canvas.mark("K", reach, taps - 6, "", "quiet");
        const next = axis.span(start, start + g.stride);
        if (next && g.stride > 1)
          canvas.mark(
            "stride",
            [next[0] + axis.cell / 2, next[0] + axis.cell / 2 + g.stride * axis.cell],
            marksY,
            `stride ${g.stride}`,
            "quiet",
          );
      }
    });
    canvas.into(layers.still, () => {
      sumsOfSpreads(canvas, axis, {
        c,
        step,
        pairs,
        shown,
        spreads,
        row,
        sum,
        y: sumsY,
        now,
        goal: goalOf(axis, tops, now),
      });
    });
    const at = axis.x(now.output);
    slide(layers, before, at);
    before = at;
    return pairs.length ? `${caption(c, step, sum, 0)} ${phrase("dashed_spread")}` : caption(c, step, sum, 0);
  };
  const svg = canvas.svg(phrase("figure_spread"));
  return { svg, axis, channels, bottoms: [samples + height], tops, show };
}

// The column of the output: what stands in it is added.
function column(canvas, axis, output, top, bottom) {
  if (!axis.outputs.includes(output)) return;
  const x = (axis.outputX(output) - 1).toFixed(1);
  const size = { width: (axis.cell + 2).toFixed(1), height: bottom - top };
  canvas.add(element("rect", { x, y: top, ...size, rx: 4, class: "column" }));
}

// The taps where the newest of the inputs lays them.
function laidTaps(canvas, axis, { c, pair, now, row, y }) {
  const g = c.geometry;
  const [outer, inner] = c.place(now.channel, row);
  canvas.movingName(y - canvas.head, c.state.x.length > 1 || c.channels > 1 ? `weight[${outer}, ${inner}]` : "taps");
  c.taps(now.channel, row).forEach((tap, k) => {
    const at = pair.p * g.stride + k * g.dilation - g.left;
    if (!axis.shows(at)) return;
    canvas.cell(axis.x(at), y, axis.cell, "tap", short(tap), `tap ${k}: ${tap}`, `w:${outer}:${inner}:${k}:0`);
  });
}

// One input times each of the taps, where they come to lie; the one in the output's column is added.
function spread(canvas, axis, { c, pair, now, row, y }) {
  const g = c.geometry;
  const start = pair.p * g.stride - g.left;
  const words = `x[${pair.p}] · taps`;
  canvas.movingName(y - canvas.head, words);
  c.taps(now.channel, row).forEach((tap, k) => {
    const at = start + k * g.dilation;
    if (!axis.shows(at)) return;
    const added = at === now.output;
    const outside = at < 0 || at >= c.outputs;
    const kind = outside ? "unread" : added ? "product" : "spread";
    const label = `input ${pair.p}, ${pair.value}, times tap ${k}, ${tap}, is ${pair.value * tap}`;
    canvas.cell(axis.x(at), y, axis.cell, kind, short(pair.value * tap), label);
  });
}

function sumsOfSpreads(canvas, axis, { c, step, pairs, shown, spreads, row, now, ...how }) {
  const { sum } = how;
  const { row: height } = canvas.layout;
  const units = pairs.map((pair) => sum.units(pair.product));
  const x = axis.middle(axis.outputX(now.output));
  if (c.inGroup === 1 && step.bias === null) {
    const xs = axis.outputs.includes(now.output) && pairs.length ? [x] : [];
    drawSumLine(canvas, { ...how, units, xs, bottom: how.y });
    return;
  }
  const left = units.slice(shown.length);
  const rows = shown.map((pair, n) => ({
    y: spreads[n] + height / 2,
    units: units[n],
    from: Infinity,
  }));
  const more = [];
  if (left.length) more.push({ units: sumOf(left), label: phrase("more_taps", { n: left.length }) });
  const rest = step.rows.filter((_, r) => r !== row).map((one) => sum.total(one.products));
  if (rest.length) more.push({ units: sumOf(rest), label: phrase("more_inputs", { n: rest.length }) });
  if (step.bias !== null) more.push({ units: sum.units(step.bias), label: "bias" });
  const label = c.channels > 1 ? phrase("sum_of_channel", now) : "sum";
  drawSumColumn(canvas, { ...how, beside: axis.end, rows, more, label });
}
