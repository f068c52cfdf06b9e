// The figure of a long signal: input and output over the same samples, and where the window stands.
import { Canvas, element } from "./canvas.js";
import { windowTaps } from "./convolution.js";
import { niceTicks } from "./numbers.js";

const ROW = 44;

// The least and the most of each of `count` stretches of values that stand at place(n), over [from, until).
export function envelope(values, spacing, [from, until], count) {
  const [least, most] = [new Array(count).fill(Infinity), new Array(count).fill(-Infinity)];
  const first = Math.max(0, Math.ceil(from / spacing));
  const last = Math.min(values.length, Math.ceil(until / spacing));
  const share = count / (until - from);
  for (let n = first; n < last; n += 1) {
    const v = values[n];
    if (!Number.isFinite(v)) continue;
    // Few values fill the stretches up to the next one.
    const a = Math.floor((n * spacing - from) * share);
    const b = Math.max(a + 1, Math.floor(((n + 1) * spacing - from) * share));
    for (let bin = a; bin < b && bin < count; bin += 1) {
      if (v < least[bin]) least[bin] = v;
      if (v > most[bin]) most[bin] = v;
    }
  }
  return { least, most };
}

// `rows` are {name, kind, least, most}; `view` the samples that are shown; `step` {channel, output}.
export function drawOverview(c, layout, width, { rows, view, step }) {
  const canvas = new Canvas(layout, width);
  const [from, until] = view;
  const g = c.geometry;
  const left = canvas.margin + canvas.label;
  const available = width - left - canvas.margin - 4;
  const x = (sample) => left + ((sample - from) * available) / (until - from);
  const cut = (sample) => Math.max(left, Math.min(left + available, x(sample)));
  let y = canvas.height;
  const [top, outputSpacing] = [y, g.transposed ? 1 / g.stride : g.stride];
  const windows = windowTaps(g, step.output).map(([p]) => p);
  for (const { name, kind, least, most } of rows) {
    y = canvas.name(y, name);
    const finite = (list, pick) => pick(...list.filter(Number.isFinite));
    const [low, high] = [Math.min(0, finite(least, Math.min)), Math.max(0, finite(most, Math.max))];
    const at = (v) => y + 3 + (ROW - 6) * (1 - (v - low) / (high - low || 1));
    canvas.line(left, at(0), left + available, at(0), "axis");
    const places = least
      .map((v, n) => [n, v])
      .filter(([, v]) => Number.isFinite(v))
      .map(([n]) => n);
    const bin = (n) => (left + ((n + 0.5) * available) / least.length).toFixed(1);
    const over = places.map((n) => `${bin(n)},${(at(most[n]) - 0.5).toFixed(1)}`);
    const under = places.map((n) => `${bin(n)},${(at(least[n]) + 0.5).toFixed(1)}`).reverse();
    canvas.add(element("polygon", { points: [...over, ...under].join(" "), class: `envelope ${kind}` }));
    y += ROW + 4;
  }
  for (const tick of niceTicks(from, until, canvas.isCompact ? 4 : 8)) {
    if (tick > until) continue;
    canvas.line(x(tick), y, x(tick), y + 4, "axis");
    const side = x(tick) < left + 16 ? "start" : x(tick) > left + available - 16 ? "end" : "middle";
    canvas.text(x(tick), y + 16, tick.toLocaleString("en"), "index", side);
  }
  canvas.height = y + 22;
  const output = step.output * outputSpacing;
  const inside = windows.filter((p) => p >= from && p < until);
  if (inside.length) {
    const [a, b] = [cut(Math.min(...inside)), cut(Math.max(...inside) + 1)];
    const box = {
      x: (a - 1).toFixed(1),
      y: top + canvas.head,
      width: Math.max(b - a + 2, 3).toFixed(1),
      height: ROW + 2,
    };
    canvas.add(element("rect", { ...box, class: "window" }));
  }
  if (output >= from && output < until && rows.length > 1)
    canvas.line(x(output), top + ROW + canvas.head + 6, x(output), top + 2 * (ROW + canvas.head) + 6, "link strong");
  const svg = canvas.svg(`All ${c.length} samples, and where the window stands`);
  return { svg, sample: (at) => from + ((at - left) / available) * (until - from) };
}
