// The figure of channels: which output channels read which input channels, in blocks by group.
import { Canvas, element } from "./canvas.js";

export function drawChannels(c, layout, width) {
  const canvas = new Canvas(layout, width);
  const [ins, outs] = [Math.min(c.state.x.length, 32), Math.min(c.channels, 32)];
  const size = Math.max(9, Math.min(30, (width - 2 * layout.margin - 130) / ins));
  const [x0, y0] = [layout.margin + 110, canvas.height + 36];
  canvas.text(x0, canvas.height + 14, `${c.state.x.length} input channels`, "note", "start");
  for (let o = 0; o < outs; o += 1) {
    if (size > 13 || o % 4 === 0) canvas.text(x0 - 8, y0 + o * size + size / 2 + 5, `output ${o}`, "index", "end");
    const read = c.inputs(o);
    for (let i = 0; i < ins; i += 1) {
      const used = read.includes(i);
      const rect = element("rect", {
        x: (x0 + i * size).toFixed(1),
        y: (y0 + o * size).toFixed(1),
        width: (size - 2).toFixed(1),
        height: (size - 2).toFixed(1),
        rx: 2,
        class: used ? "tap" : "hole",
      });
      const title = element("title");
      title.textContent = used
        ? `output ${o} reads input ${i} with ${c.geometry.kernelSize} taps`
        : `output ${o} doesn't read input ${i}`;
      rect.append(title);
      canvas.add(rect);
    }
  }
  for (let i = 0; i < ins; i += size > 17 ? 1 : 4) canvas.text(x0 + i * size + size / 2, y0 - 6, String(i), "index");
  canvas.height = y0 + outs * size + 12;
  if (ins < c.state.x.length || outs < c.channels) {
    canvas.text(x0, canvas.height + 10, "… the first 32 of each are shown", "note", "start");
    canvas.height += 24;
  }
  return canvas.svg("Which output channel reads which input channels");
}
