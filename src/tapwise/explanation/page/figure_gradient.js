// The figure of a gradient: grad_output, and how one number of grad_input or grad_weight is summed from it.
import { Canvas } from "./canvas.js";
import { Axis, more } from "./figure_parts.js";
import { drawSumColumn, drawSumLine } from "./figure_sums.js";
import { PrintedSum, short, sumOf } from "./numbers.js";
import { phrase, plural } from "./words.js";

// `at` is {kind: "input" or "weight", n}: the number whose sum is drawn, of input channel `row` of the group.
// Returns {svg, words}.
export function drawGradient(c, gradients, layout, width, { step, row, at }) {
  const canvas = new Canvas(layout, width);
  const g = c.geometry;
  const { row: height } = layout;
  const { channel } = step;
  const input = c.inputs(channel)[row];
  const parts =
    at.kind === "input" ? gradients.partsOfInput(input, at.n, channel) : gradients.partsOfTap(channel, row, at.n);
  const others =
    at.kind === "input" && gradients.chosen === null
      ? gradients
          .readers(input)
          .filter((o) => o !== channel)
          .flatMap((o) => gradients.partsOfInput(input, at.n, o).map((part) => part.factor))
      : [];
  const inColumn = at.kind === "input" && gradients.chosen === null && c.outGroup > 1;
  const axis = new Axis(c, canvas, middleOutput(parts, step), { right: inColumn ? 88 : 16 });
  const several = c.channels > 1;

  // grad_output.
  let y = canvas.name(canvas.height + 4, several ? `∂ output ${channel}` : "∂ output");
  for (const i of axis.outputs) {
    const value = gradients.output(channel, i);
    canvas.cell(
      axis.outputX(i),
      y,
      axis.cell,
      value ? "output" : "unread",
      short(value),
      `gradient of output ${i}: ${value}`,
    );
    canvas.text(axis.middle(axis.outputX(i)), y + height + 12, String(i), "index");
  }
  more(canvas, axis, y, axis.outputs[0] > 0, axis.outputs.at(-1) < c.outputs - 1);
  // What each counted output brings: the tap by which it read the input, or the input that the tap was multiplied by.
  const factorsY = canvas.name(y + height + 20, at.kind === "input" ? "its tap" : "its input");
  // An output that read the input twice, through a copy in the padding, brings both.
  const shown = axis.outputs
    .map((output) => ({ output, parts: parts.filter((part) => part.output === output) }))
    .filter((one) => one.parts.length);
  for (const one of shown) {
    const x = axis.outputX(one.output);
    canvas.line(axis.middle(x), y + height + 16, axis.middle(x), factorsY, "link strong");
    const text = one.parts.map(({ factor }) => short(factor)).join(" + ");
    const isPad = at.kind === "weight" && one.parts[0].input === null;
    const kind = at.kind === "input" ? "tap" : isPad ? "pad" : "input";
    const names = one.parts.map((part) => (at.kind === "input" ? part.tap : isPad ? "pad" : `x[${part.input}]`));
    const label =
      at.kind === "input"
        ? `output ${one.output} read input ${at.n} by tap ${names.join(" and tap ")}: ${text}`
        : `for output ${one.output}, tap ${at.n} was multiplied by ${isPad ? "padding" : names[0]}: ${text}`;
    canvas.cell(x, factorsY, axis.cell, kind, text, label);
    const below = at.kind === "input" ? `tap ${names.join(", ")}` : names[0];
    canvas.text(axis.middle(x), factorsY + height + 12, below, "index");
  }
  const factors = parts.map((part) => part.factor);
  const sum = new PrintedSum([...factors, ...others]);
  const units = factors.map((factor) => sum.units(factor));
  const sumsY = factorsY + height + 22;
  const lines = inColumn ? 3 : 2;
  const inputsY = sumsY + lines * 24 + 8;
  // grad_input under grad_output, and grad_weight.
  const values = gradients.once(`x${input}`, () => gradients.input(input));
  const top = canvas.name(inputsY, c.state.x.length > 1 ? `∂ input ${input}` : "∂ input", true);
  const places = {};
  for (const p of axis.inputs) {
    if (p < 0 || p >= c.length) continue;
    const value = values ? values[p] : phrase("too_long");
    const text = values ? short(value) : "";
    const cell = canvas.cell(
      axis.inputX(p),
      top,
      axis.cell,
      value ? "input" : "unread",
      text,
      `gradient of input ${p}: ${value}`,
      `gx:${p}`,
    );
    if (at.kind === "input" && at.n === p) cell.classList.add("lit");
    places[`input ${p}`] = [axis.inputX(p), top];
    canvas.text(axis.middle(axis.inputX(p)), top + height + 12, String(p), "index");
  }
  more(canvas, axis, top);
  const weightY = canvas.name(
    top + height + 28,
    c.state.x.length > 1 || several ? `∂ weight[${c.place(channel, row).join(", ")}]` : "∂ weight",
    true,
  );
  const most = Math.min(g.kernelSize, axis.columns);
  for (let k = 0; k < most; k += 1) {
    const x = axis.left + k * axis.cell;
    const value = gradients.once(`w${channel}:${row}:${k}`, () => gradients.tap(channel, row, k));
    const cell = canvas.cell(x, weightY, axis.cell, "tap", short(value), `gradient of tap ${k}: ${value}`, `gw:${k}`);
    if (at.kind === "weight" && at.n === k) cell.classList.add("lit");
    places[`weight ${k}`] = [x, weightY];
    canvas.text(axis.middle(x), weightY + height + 12, `tap ${k}`, "index");
  }
  if (most < g.kernelSize) canvas.text(axis.left + most * axis.cell + 8, weightY + 21, "…", "note");
  else if (c.state.bias !== null && most + 2 <= axis.columns) {
    const x = axis.left + (most + 1) * axis.cell;
    canvas.cell(x, weightY, axis.cell, "tap", short(gradients.bias(channel)), phrase("gradient_bias"));
    canvas.text(axis.middle(x), weightY + height + 12, "∂ bias", "index");
  }
  const place = places[`${at.kind} ${at.n}`];
  const goal = place
    ? { x: place[0], middle: axis.middle(place[0]), top: place[1], under: top, key: `${at.kind} ${at.n}` }
    : null;
  const how = { sum, y: sumsY, goal };
  if (inColumn) {
    const rows = [
      {
        y: factorsY + height / 2,
        units: sumOf(units),
        from: shown.length ? axis.outputX(shown.at(-1).output) + axis.cell : axis.left,
      },
    ];
    const rest = [
      {
        units: sum.total(others),
        label: phrase("more_readers", { channels: plural(c.outGroup - 1, "output channel") }),
      },
    ];
    drawSumColumn(canvas, { ...how, beside: axis.end, rows, more: rest, label: "sum" });
  } else {
    const xs = shown.map(({ output }) => axis.middle(axis.outputX(output)));
    drawSumLine(canvas, { ...how, units, xs, bottom: factorsY + height + 16, empty: phrase("no_output") });
  }
  canvas.height = weightY + height + 24;
  return { svg: canvas.svg(phrase("figure_gradient")), total: sum.text(sumOf(units) + sum.total(others)) };
}

// The output around which the columns are shown.
function middleOutput(parts, step) {
  return parts.length ? parts[Math.floor(parts.length / 2)].output : step.output;
}
