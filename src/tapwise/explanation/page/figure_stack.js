// The figure of a stack: one output and all that it reads, layer by layer.
import { Canvas, element } from "./canvas.js";
import { cone, receptiveField, windowTaps } from "./convolution.js";

// One output of a stack and everything it reads, layer by layer; holes stay empty, the future is marked.
export function drawCone(geometries, layout, width, output) {
  const canvas = new Canvas(layout, width);
  const levels = cone(geometries, output).reverse();
  const field = receptiveField(geometries);
  const strides = [1];
  for (const g of geometries) strides.push(strides[strides.length - 1] * g.stride);
  const now = output * field.stride;
  const low = Math.min(levels[0][0], now);
  const high = Math.max(levels[0][levels[0].length - 1], now);
  const left = canvas.margin + (canvas.isCompact ? 56 : canvas.label);
  const available = width - left - canvas.margin - 6;
  const size = Math.min(26, available / (high - low + 1));
  const x = (position, level) => left + (position * strides[level] - low + 0.5) * size;
  const y = (level) => canvas.margin + 22 + (levels.length - 1 - level) * 62;
  levels.forEach((read, level) => {
    if (level === 0) return;
    const g = geometries[level - 1];
    for (const i of read)
      for (const [p] of windowTaps(g, i)) canvas.line(x(i, level), y(level) + 8, x(p, level - 1), y(level - 1) - 8);
  });
  levels.forEach((read, level) => {
    canvas.text(canvas.margin, y(level) + 5, level ? `layer ${level}` : "input", "", "start");
    const shown = new Set(read);
    const last = Math.floor((high - 0) / strides[level]);
    const first = Math.ceil(low / strides[level]);
    if (size * strides[level] >= 5) {
      for (let p = first; p <= last; p += 1) {
        const future = level === 0 && p > now;
        const kind = shown.has(p)
          ? future
            ? "leak"
            : level === levels.length - 1
              ? "output"
              : level
                ? "product"
                : "input"
          : "hole";
        const side = Math.min(16, size * strides[level] - 2);
        const rect = element("rect", {
          x: (x(p, level) - side / 2).toFixed(1),
          y: y(level) - 8,
          width: side.toFixed(1),
          height: 16,
          rx: 3,
          class: kind,
        });
        const title = element("title");
        const place = level ? `layer ${level}` : "input";
        const hole = shown.has(p) ? "" : ": not read, a hole";
        title.textContent = `${place} ${p}${hole}${future ? ": in the future" : ""}`;
        rect.append(title);
        canvas.add(rect);
      }
    } else
      for (const p of read)
        canvas.line(x(p, level), y(level) - 8, x(p, level), y(level) + 8, level === 0 && p > now ? "leak" : "curve");
  });
  const bottom = y(0) + 14;
  canvas.line(x(now, 0), bottom, x(now, 0), bottom + 12, "link strong");
  const words = `now: input ${now}`;
  const half = words.length * 3.2;
  canvas.text(
    Math.max(canvas.margin + half, Math.min(width - canvas.margin - half, x(now, 0))),
    bottom + 26,
    words,
    "index",
  );
  canvas.height = bottom + 36;
  return canvas.svg("What one output of the stack reads, layer by layer");
}
