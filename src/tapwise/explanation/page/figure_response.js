// The figure of a response: impulse, magnitude and delay of one filter.
import { Canvas, element } from "./canvas.js";
import { response } from "./convolution.js";
import { leastOf, mostOf, short, ticksAround } from "./numbers.js";
import { phrase } from "./words.js";

const INSET = 7; // no curve and no marker lies on the frame

// A frame for values from low to high, widened to round numbers: {y(value), bottom}, with its name and its ticks drawn.
function frame(canvas, left, right, { name, unit, height, low, high }) {
  let top = canvas.height + 26;
  if (canvas.isCompact) {
    canvas.text(canvas.margin, top + 8, `${name} ${unit}`, "note", "start");
    top += 18;
  } else {
    canvas.text(canvas.margin, top + 12, name, "", "start");
    canvas.text(canvas.margin, top + 29, unit, "note", "start");
  }
  const ticks = ticksAround(low, high);
  const [from, until] = [ticks[0], ticks.at(-1)];
  const y = (value) => top + INSET + (height - 2 * INSET) * (1 - (value - from) / (until - from || 1));
  for (const tick of ticks) {
    canvas.line(left, y(tick), right, y(tick), "grid");
    canvas.text(left - 5, y(tick) + 4, short(tick), "index", "end");
  }
  canvas.height = top + height;
  return { y, bottom: top + height };
}

// Labels at their places; those are left out that would stand on one before them in the list.
function labels(canvas, y, places, [from, until]) {
  const taken = [];
  for (const { x, text } of places) {
    const half = text.length * 3.2;
    const middle = Math.max(from + half, Math.min(until - half, x));
    if (taken.some(([other, size]) => Math.abs(other - middle) < size + half + 6)) continue;
    taken.push([middle, half]);
    canvas.text(middle, y, text, "index");
  }
}

// What one sample of 1 becomes: each tap at the time when it comes out; those before now are marked.
function impulse(canvas, taps, g, left, right) {
  const times = taps.map((_, k) => g.left - k * g.dilation);
  const [first, last] = [leastOf(times, 0), mostOf(times, 0)];
  const finite = taps.map((tap) => (Number.isFinite(tap) ? tap : 0));
  const [low, high] = [leastOf(finite, 0), mostOf(finite, 0)];
  const size = { height: 90, low, high: high - low ? high : 1 };
  const { y, bottom } = frame(canvas, left, right, { name: "impulse", unit: "response", ...size });
  const x = (time) => left + 30 + ((time - first) * (right - left - 60)) / Math.max(last - first, 1);
  canvas.line(left, y(0), right, y(0), "axis");
  finite.forEach((tap, k) => {
    canvas.line(x(times[k]), y(0), x(times[k]), y(tap), "curve");
    const dot = element("rect", {
      x: (x(times[k]) - 4).toFixed(1),
      y: (y(tap) - 4).toFixed(1),
      width: 8,
      height: 8,
      rx: times[k] < 0 ? 0 : 4, // a square lies ahead, a circle doesn't
      class: times[k] < 0 ? "ahead" : "tap",
    });
    const title = element("title");
    title.textContent = `tap ${k}, ${times[k]} samples later: ${taps[k]}`;
    dot.append(title);
    canvas.add(dot);
  });
  const side = (time) => (time > 0 ? "later" : "ahead");
  const words = (time) => phrase(time === 0 ? "now" : side(time), { n: Math.abs(time) });
  const places = [...new Set([0, first, last])].map((time) => ({ x: x(time), text: words(time) }));
  labels(canvas, bottom + 14, places, [left, right]);
  canvas.height = bottom + 24;
}

function curve(canvas, values, left, right, y) {
  let path = "";
  values.forEach((value, n) => {
    if (!Number.isFinite(value)) return;
    const pen = path && Number.isFinite(values[n - 1]) ? "L" : "M";
    path += `${pen}${(left + ((right - left) * n) / (values.length - 1)).toFixed(1)} ${y(value).toFixed(1)}`;
  });
  canvas.add(element("path", { d: path, class: "curve" }));
}

// Impulse response, magnitude and delay of one filter.
export function drawResponse(taps, g, layout, width) {
  if (g.transposed) throw new Error("a transposed convolution has no such response");
  const canvas = new Canvas(layout, width);
  const left = canvas.margin + (canvas.isCompact ? 36 : canvas.label + 36);
  const right = width - canvas.margin - 6;
  impulse(canvas, taps, g, left, right);
  const rows = response(taps, g.dilation, g.left);
  const magnitude = rows.map((row) => row.magnitude);
  const peak = Math.max(...magnitude.filter(Number.isFinite), 1e-12);
  const loud = frame(canvas, left, right, { name: "magnitude", unit: "(out / in)", height: 130, low: 0, high: peak });
  curve(canvas, magnitude, left, right, loud.y);
  const delay = rows.map((row) => (row.magnitude > peak * 1e-3 ? row.delay : NaN));
  const finite = delay.filter(Number.isFinite);
  const range = { low: Math.min(0, ...finite), high: Math.max(1, ...finite) };
  const late = frame(canvas, left, right, { name: "delay", unit: "(samples)", height: 96, ...range });
  curve(canvas, delay, left, right, late.y);
  const shares = [0, 0.5, 0.25, 0.125, 0.375].map((share) => ({
    x: left + (right - left) * share * 2,
    text: `${share}`,
  }));
  labels(canvas, late.bottom + 14, shares, [left - 8, right + 6]);
  canvas.text((left + right) / 2, late.bottom + 32, phrase("frequency"), "note");
  canvas.height = late.bottom + 44;
  return canvas.svg("Magnitude and delay of the taps over frequency");
}
