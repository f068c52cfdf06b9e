// The figure of a response: impulse, magnitude and delay of one filter.
import { Canvas, element, short } from "./canvas.js";
import { response } from "./convolution.js";
import { phrase } from "./words.js";

// What one sample of 1 becomes: each tap at the time when it comes out; those before now are marked.
function impulse(canvas, taps, g, left, available) {
  const top = canvas.height + 4;
  const height = 70;
  const times = taps.map((_, k) => g.left - k * g.dilation);
  const [first, last] = [Math.min(0, ...times), Math.max(0, ...times)];
  const finite = taps.map((tap) => (Number.isFinite(tap) ? tap : 0));
  const [low, high] = [Math.min(0, ...finite), Math.max(0, ...finite)];
  const y = (value) => top + height * (1 - (value - low) / (high - low || 1));
  const x = (time) => left + 20 + ((time - first) * (available - 40)) / Math.max(last - first, 1);
  canvas.text(canvas.layout.margin, top + 12, "impulse", "", "start");
  canvas.text(canvas.layout.margin, top + 29, "response", "note", "start");
  canvas.line(left, y(0), left + available, y(0), "axis");
  finite.forEach((tap, k) => {
    canvas.line(x(times[k]), y(0), x(times[k]), y(tap), "curve");
    const dot = element("rect", {
      x: (x(times[k]) - 3).toFixed(1),
      y: (y(tap) - 3).toFixed(1),
      width: 6,
      height: 6,
      rx: 3,
      class: times[k] < 0 ? "leak" : "tap",
    });
    const title = element("title");
    title.textContent = `tap ${k}, ${times[k]} samples later: ${taps[k]}`;
    dot.append(title);
    canvas.add(dot);
  });
  for (const time of new Set([first, 0, last])) {
    const side = time > 0 ? "later" : "ahead";
    canvas.text(x(time), top + height + 16, phrase(time === 0 ? "now" : side, { n: Math.abs(time) }), "index");
  }
  canvas.height += 104;
}

// Impulse response, magnitude and delay of one filter.
export function drawResponse(taps, g, layout, width) {
  if (g.transposed) throw new Error("a transposed convolution has no such response");
  const canvas = new Canvas(layout, width);
  const rows = response(taps, g.dilation, g.left);
  const available = width - 2 * layout.margin - layout.label;
  const left = layout.margin + layout.label;
  const plot = (title, unit, values, top, height, low, high) => {
    canvas.text(layout.margin, top + 4, title, "note", "start");
    canvas.text(layout.margin, top + 21, unit, "note", "start");
    for (const share of [0, 0.5, 1]) {
      const at = top + height * (1 - share);
      canvas.line(left, at, left + available, at, "grid");
      canvas.text(left - 6, at + 4, short(low + (high - low) * share), "index", "end");
    }
    let path = "";
    values.forEach((value, n) => {
      if (Number.isFinite(value))
        path += `${path && Number.isFinite(values[n - 1]) ? "L" : "M"}${(left + (available * n) / (values.length - 1)).toFixed(1)} ${(top + height * (1 - (value - low) / (high - low || 1))).toFixed(1)}`;
    });
    canvas.add(element("path", { d: path, class: "curve" }));
  };
  impulse(canvas, taps, g, left, available);
  const peak = Math.max(...rows.map((row) => row.magnitude), 1e-12);
  plot(
    "magnitude",
    "out / in",
    rows.map((row) => row.magnitude),
    canvas.height + 6,
    120,
    0,
    peak,
  );
  const clear = rows.map((row) => (row.magnitude > peak * 1e-3 ? row.delay : NaN));
  const finite = clear.filter(Number.isFinite);
  const [low, high] = finite.length ? [Math.min(0, ...finite), Math.max(1, ...finite)] : [0, 1];
  plot("delay", "samples", clear, canvas.height + 158, 80, low, high);
  for (const share of [0, 0.25, 0.5, 0.75, 1])
    canvas.text(left + available * share, canvas.height + 256, `${share / 2}`, "index");
  canvas.text(left + available / 2, canvas.height + 274, phrase("frequency"), "note");
  canvas.height += 286;
  return canvas.svg("Magnitude and delay of the taps over frequency");
}
