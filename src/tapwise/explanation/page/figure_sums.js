// The way of a sum in the figures of one step: from its addends to the output that it is.
import { element } from "./canvas.js";
import { sumOf } from "./numbers.js";
import { phrase } from "./words.js";

// The cell that a sum is the value of: {x, middle, top}; `under` is where the uppermost row of such cells begins. Null
// where it isn't in the picture.
export function goalOf(axis, tops, { channel, output }) {
  if (!axis.outputs.includes(output)) return null;
  const x = axis.outputX(output);
  return {
    x,
    middle: axis.middle(x),
    top: tops[channel],
    under: Math.min(...Object.values(tops)),
    key: `y:${channel}:${output}`,
  };
}

// From where a sum was made to the cell that holds it: straight down, or beside the rows between.
function connect(canvas, goal, from) {
  if (goal === null) return;
  const { x: gutter, middle, top, under, key } = goal;
  const turn = under - canvas.head - 8;
  const points = from.map(([x, y]) => [x, y]);
  if (top === under) {
    if (points.at(-1)[0] !== middle) points.push([points.at(-1)[0], turn], [middle, turn]);
  } else points.push([points.at(-1)[0], turn], [gutter, turn], [gutter, top - 5], [middle, top - 5]);
  points.push([middle, top]);
  canvas.path(points, "halo");
  canvas.path(points, "link strong way", key);
  canvas.path(
    [
      [middle - 4, top - 6],
      [middle, top - 1],
      [middle + 4, top - 6],
    ],
    "link strong",
    key,
  );
}

// A sum in one line: what `xs` point to meets in it, and it goes to the output.
export function drawSumLine(canvas, { units, sum, xs, bottom, y, goal, empty, hidden }) {
  const budget = (canvas.width - 2 * canvas.margin - 24) / 8;
  const total = `= ${hidden ? phrase("asked") : sum.text(sumOf(units))}`;
  const lines = [units.length, 12, 3].map((most) => `${sum.line(units, most)} ${total}`);
  if (units.length === 1 && !hidden) lines.unshift(sum.text(units[0]));
  const text = units.length ? lines.find((line) => line.length <= budget) || total : empty || phrase("no_input");
  const width = text.length * 8 + 20;
  const target = goal === null ? canvas.width / 2 : goal.middle;
  const wanted = xs.length ? (xs[0] + xs.at(-1)) / 2 : target;
  const right = canvas.width - canvas.margin - width / 2;
  const middle = Math.max(canvas.margin + width / 2, Math.min(right, wanted));
  const within = (x) => Math.max(middle - width / 2 + 12, Math.min(middle + width / 2 - 12, x));
  for (const x of xs) canvas.line(x, bottom, within(x), y + 4, "link");
  const left = (middle - width / 2).toFixed(1);
  canvas.add(element("rect", { x: left, y: y + 4, width: width.toFixed(1), height: 24, rx: 12, class: "sum" }));
  canvas.text(middle, y + 21, text, "number");
  connect(canvas, goal, [[within(target), y + 28]]);
}

// Subtotals under one another at the right edge, as in a sum by hand, and their total, which goes to the output.
// `rows` are {y, units, from}, beside what they sum; `more` are {units, label}, in lines of their own from y on.
// They stand at the right of `beside`.
export function drawSumColumn(canvas, { rows, more, label, sum, y, goal, beside, hidden }) {
  const right = Math.min(canvas.width - canvas.margin - 2, beside + 110);
  const write = (at, units, kind = "") => {
    const text = hidden && kind ? phrase("asked") : sum.text(units);
    canvas.text(right, at + 5, text, `number ${kind}`, "end");
    return right - (kind ? 10 : 9.2) * text.length - 8;
  };
  for (const row of rows) {
    const start = write(row.y, row.units);
    if (row.from + 4 < start) canvas.line(row.from + 2, row.y, start, row.y, "link");
  }
  let at = y + 4;
  for (const line of more) {
    canvas.text(write(at, line.units), at + 5, line.label, "note", "end");
    at += 24;
  }
  canvas.line(right - 80, at - 8, right, at - 8, "axis");
  at += 6;
  const total = sumOf([...rows, ...more].map((line) => line.units));
  canvas.text(write(at, total, "total"), at + 5, label, "", "end");
  connect(canvas, goal, [[right - 18, at + 9]]);
}
