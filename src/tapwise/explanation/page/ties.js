// What a cell is tied to, both ways: an input to each output that it feeds, a tap to each of its uses.
import { feeds, source, windowTaps } from "./convolution.js";

// What a cell is tied to: the keys to light, and the lines [input, output] to draw.
export function ties(c, key, axis) {
  const [kind, a, b, k] = key.split(":");
  const g = c.geometry;
  const keys = new Set([key]);
  const lines = [];
  const shownInputs = new Set(axis.inputs);
  if (kind === "y") {
    const step = c.step(Number(a), Number(b));
    step.positions.forEach((p, n) => {
      for (const row of step.rows) keys.add(`x:${row.input}:${step.sources[n]}:${p}`);
    });
  } else if (kind === "x") {
    const fed = feeds(g, Number(b), c.length);
    const group = Math.floor(Number(a) / c.inGroup);
    for (const i of fed) {
      for (let o = group * c.outGroup; o < (group + 1) * c.outGroup; o += 1) keys.add(`y:${o}:${i}`);
      if (axis.outputs.includes(i))
        for (const [p] of windowTaps(g, i))
          if (shownInputs.has(p) && source(g, p, c.length) === Number(b)) lines.push([p, i]);
    }
    for (const p of axis.inputs) if (source(g, p, c.length) === Number(b)) keys.add(`x:${a}:${b}:${p}`);
  } else {
    const [outer, inner] = [Number(a), Number(b)];
    const input = g.transposed ? outer : c.inputs(outer)[inner];
    const channel = g.transposed ? Math.floor(outer / c.inGroup) * c.outGroup + inner : outer;
    for (const i of axis.outputs) {
      for (const [p, tap] of windowTaps(g, i)) {
        if (tap !== Number(k) || !shownInputs.has(p)) continue;
        lines.push([p, i]);
        const from = source(g, p, c.length);
        keys.add(`x:${input}:${from}:${p}`);
        keys.add(`y:${channel}:${i}`);
      }
    }
  }
  return { keys, lines };
}
