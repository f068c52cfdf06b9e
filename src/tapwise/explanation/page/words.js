// What the numbers mean, in sentences with the reader's own numbers in them. The sentences stand in words.json,
// which comes from the build as WORDS.
import { ahead, feeds, unread } from "./convolution.js";

export function phrase(name, values = {}) {
  return WORDS[name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

// A number as the text explanation writes it: 3.0.
export function written(value) {
  if (!Number.isFinite(value)) return String(value).replace("Infinity", "inf").replace("NaN", "nan");
  const exact = Number(value.toPrecision(8));
  return Number.isInteger(exact) && Math.abs(exact) < 1e16 ? `${exact}.0` : String(exact);
}
const brief = (value) => (Number.isInteger(value) ? `${value}.` : written(Number(value.toPrecision(5))));

export function sentence(step) {
  const shorten = (parts) => (parts.length > 24 ? [...parts.slice(0, 4), "...", ...parts.slice(-4)] : parts);
  const sums = step.rows.map((row) => {
    const values = row.values.map((value, n) => (step.padded[n] ? `(${brief(value)})` : brief(value)));
    return `sum([${shorten(values).join(" ")}]*[${shorten(row.taps.map(brief)).join(" ")}])`;
  });
  let shown = sums;
  if (sums.length > 4) shown = [...sums.slice(0, 2), phrase("more_channels", { n: sums.length - 3 }), sums.at(-1)];
  if (!step.positions.length) shown = [phrase("no_input")];
  const bias = step.bias === null ? "" : ` ${step.bias < 0 ? "-" : "+"} ${written(Math.abs(step.bias))}`;
  return `Step ${step.output}: ${shown.join(" + ")}${bias} = ${written(step.sum)}`;
}

export const plural = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

function lengthWords(c) {
  const g = c.geometry;
  const values = { ...g, length: c.length, outputs: c.outputs, output_padding: g.outputPadding };
  const length = phrase("how_long", { length: phrase(g.transposed ? "length_transposed" : "length", values) });
  if (g.transposed) return [length, phrase("spreads", { stride: plural(g.stride, "output") })];
  const rest = (c.length + g.left + g.right - g.effective) % g.stride;
  if (!rest) return [length];
  const grey = unread(g, c.length) ? phrase("grey") : "";
  const are = rest === 1 ? "is" : "are";
  return [`${length} ${phrase("rest", { rest: plural(rest, "position"), are, grey })}`];
}

function futureWords(c) {
  const g = c.geometry;
  const most = g.effective - 1;
  const at = g.stride === 1 ? "i" : `i*${g.stride}`;
  const future = ahead(g, c.length, c.outputs);
  if (future <= 0) {
    let more = g.effective === 1 ? "" : ` ${phrase("shifted")}`;
    if (future < 0) more = ` ${phrase("late", { n: -future })}`;
    return phrase("causal", { left: g.left, most, at }) + more;
  }
  const withZeros = most - g.left;
  const see = withZeros <= 0 ? "not" : `see ${withZeros}`;
  const why = future > withZeros ? phrase("copies", { mode: g.mode, see }) : phrase("not_copies", { most });
  return phrase("future", { at, future }) + why;
}

function transposedWords(g) {
  const cut = plural(g.left, "output");
  const lines = [phrase(g.left > 0 ? "future_transposed" : "causal_transposed", { ...g, cut })];
  if (g.dilation > 1 && g.kernelSize > 1) lines.push(phrase("dilation_transposed", g));
  return lines;
}

// Samples that no window reads, of every stride in the middle of the signal.
function lost(c) {
  const g = c.geometry;
  if (g.transposed || (g.mode !== "zeros" && g.left + g.right >= 2000)) return 0;
  const middle = Math.floor(c.length / 2);
  const period = Array.from({ length: Math.min(g.stride, c.length - middle) }, (_, n) => middle + n);
  const end = c.length - unread(g, c.length);
  return period.filter((p) => p < end && feeds(g, p, c.length).length === 0).length;
}

function channelWords(c, state) {
  if (c.geometry.groups > 1) {
    const groups = plural(c.geometry.groups, "group");
    return phrase("groups", { groups, inputs: plural(c.inGroup, "input channel") });
  }
  const inputs = c.inGroup === 1 ? phrase("one_channel") : phrase("all_channels", { n: c.inGroup });
  return phrase("channels", { inputs, bias: state.bias === null ? "" : phrase("and_bias") });
}

// The answers to a reader's questions, each opening with the question.
export function words(c, state) {
  const g = c.geometry;
  const lines = lengthWords(c);
  if (!g.transposed) lines.push(futureWords(c));
  const skipped = lost(c);
  if (skipped) lines.push(phrase("lost", { ...g, lost: skipped }));
  lines.push(channelWords(c, state));
  if (g.transposed) lines.push(...transposedWords(g));
  else if (g.dilation > 1 && g.kernelSize > 1) {
    const between = plural(g.dilation - 1, "sample");
    const are = g.dilation === 2 ? "is" : "are";
    lines.push(phrase("holes", { between, are, taps: g.kernelSize, effective: g.effective }));
  }
  lines.push(phrase(g.transposed ? "convolution" : "correlation"));
  const sizes = { outputs: c.outputs, n: c.channels * c.outputs, inputs: state.x.length, length: c.length };
  lines.push(phrase("linear", { channels: plural(c.channels, "channel"), ...sizes }));
  return lines;
}
