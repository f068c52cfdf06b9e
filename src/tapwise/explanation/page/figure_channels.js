// The figure of channels: the taps of each pair of channels as small bars, in blocks by group; of very many channels,
// several pairs in a square, which a press opens.
import { Canvas, element } from "./canvas.js";
import { phrase } from "./words.js";

const LEAST = 16; // pixels of a square

// Which channels are shown: {outs: [first, end], ins: [first, end]}; all where `block` is null.
const shownBlock = (c, block) => block || { outs: [0, c.channels], ins: [0, c.state.x.length] };

export function drawWeights(c, layout, width, { block, pair }) {
  const canvas = new Canvas(layout, width);
  const { outs, ins } = shownBlock(c, block);
  const left = canvas.margin + (canvas.isCompact ? 34 : 96);
  const available = width - left - canvas.margin - 4;
  const most = Math.min(32, Math.floor(available / LEAST));
  const [nIn, nOut] = [ins[1] - ins[0], outs[1] - outs[0]];
  // So many pairs of channels in a square.
  const [perIn, perOut] = [Math.ceil(nIn / most), Math.ceil(nOut / 32)];
  const [columns, rows] = [Math.ceil(nIn / perIn), Math.ceil(nOut / perOut)];
  const few = columns <= 8 && rows <= 8;
  const size = Math.max(LEAST, Math.min(few ? 96 : 54, available / columns));
  const height = Math.max(LEAST, Math.min(size, few ? 60 : 40));
  const top = canvas.height + 40;
  const largest = largestOf(c);
  canvas.text(left, canvas.height + 12, phrase("input_channels"), "note", "start");
  for (let column = 0; column < columns; column += size < 26 ? 4 : 1) {
    const i = ins[0] + column * perIn;
    canvas.text(left + (column + 0.5) * size, top - 6, String(i), "index");
  }
  for (let row = 0; row < rows; row += 1) {
    const o = outs[0] + row * perOut;
    const y = top + row * height;
    if (height >= 18 || row % 2 === 0)
      canvas.text(left - 8, y + height / 2 + 4, canvas.isCompact ? String(o) : `output ch. ${o}`, "index", "end");
    for (let column = 0; column < columns; column += 1) {
      const i = ins[0] + column * perIn;
      const x = left + column * size;
      const isAggregated = perIn > 1 || perOut > 1;
      const square = { o: [o, Math.min(o + perOut, outs[1])], i: [i, Math.min(i + perIn, ins[1])] };
      if (isAggregated) drawBlock(canvas, c, square, { x, y, size, height, largest });
      else drawPair(canvas, c, o, i, { x, y, size, height, largest, chosen: pair && pair[0] === o && pair[1] === i });
    }
  }
  outlineGroups(canvas, c, { outs, ins }, { left, top, size, height, perIn, perOut });
  canvas.height = top + rows * height + 14;
  return { svg: canvas.svg(phrase("figure_channels")), perIn, perOut };
}

const largestOf = (c) => {
  let most = 0;
  for (const list of c.state.weight)
    for (const taps of list) for (const tap of taps) if (Number.isFinite(tap)) most = Math.max(most, Math.abs(tap));
  return most || 1;
};

function square(canvas, { x, y, size, height }, kind, label, key) {
  const group = element("g", key ? { "data-key": key, role: "button", tabindex: "-1", "aria-label": label } : {});
  const title = element("title");
  title.textContent = label;
  const box = { x: x + 1, y: y + 1, width: Math.max(size - 2, 1), height: Math.max(height - 2, 1), rx: 2, class: kind };
  group.append(title, element("rect", box));
  return canvas.add(group);
}

// The taps of one pair as bars, up where they are above 0, down where they are below.
function drawPair(canvas, c, o, i, { largest, chosen, ...place }) {
  const row = c.inputs(o).indexOf(i);
  if (row < 0) {
    square(canvas, place, "blank", phrase("not_read", { o, i }));
    return;
  }
  const taps = c.taps(o, row);
  const group = square(canvas, place, "pair", phrase("read", { o, i, taps: taps.length }), `p:${o}:${i}`);
  if (chosen) group.classList.add("lit");
  const { x, y, size, height } = place;
  const [middle, half] = [y + height / 2, height / 2 - 3];
  const bars = Math.min(taps.length, Math.floor((size - 4) / 2));
  const wide = (size - 6) / bars;
  for (let bar = 0; bar < bars; bar += 1) {
    // Of many taps, the largest of those that share a bar.
    const share = taps.slice(Math.floor((bar * taps.length) / bars), Math.floor(((bar + 1) * taps.length) / bars));
    const tap = share.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a), 0);
    const tall = Number.isFinite(tap) ? (Math.abs(tap) / largest) * half : half;
    const at = { x: (x + 3 + bar * wide).toFixed(1), y: (tap > 0 ? middle - tall : middle).toFixed(1) };
    group.append(
      element("rect", {
        ...at,
        width: Math.max(wide - 1, 1).toFixed(1),
        height: Math.max(tall, 0.5).toFixed(1),
        class: "bar",
      }),
    );
  }
  group.append(element("line", { x1: x + 3, x2: x + size - 3, y1: middle, y2: middle, class: "axis" }));
}

// Several pairs: how large their taps are, those above 0 upwards, those below 0 downwards, each as a root mean square.
function drawBlock(canvas, c, { o, i }, { largest, ...place }) {
  const sums = { up: 0, down: 0 };
  const counts = { up: 0, down: 0 };
  let read = 0;
  for (let channel = o[0]; channel < o[1]; channel += 1)
    c.inputs(channel).forEach((input, row) => {
      if (input < i[0] || input >= i[1]) return;
      for (const tap of c.taps(channel, row)) {
        read += 1;
        if (!Number.isFinite(tap)) continue;
        const side = tap < 0 ? "down" : "up";
        sums[side] += tap * tap;
        counts[side] += 1;
      }
    });
  const words = { o: `${o[0]} to ${o[1] - 1}`, i: `${i[0]} to ${i[1] - 1}` };
  if (!read) {
    square(canvas, place, "blank", phrase("not_read", words));
    return;
  }
  const size = (side) => (counts[side] ? Math.sqrt(sums[side] / counts[side]) : 0);
  const label = phrase("block", { ...words, up: size("up").toPrecision(3), down: size("down").toPrecision(3) });
  const group = square(canvas, place, "pair", label, `b:${o.join(":")}:${i.join(":")}`);
  const [middle, half] = [place.y + place.height / 2, place.height / 2 - 2];
  const [up, down] = [(size("up") / largest) * half, (size("down") / largest) * half];
  const at = { x: (place.x + place.size * 0.3).toFixed(1), y: (middle - up).toFixed(1) };
  const extent = { width: (place.size * 0.4).toFixed(1), height: Math.max(up + down, 0.5).toFixed(1) };
  group.append(element("rect", { ...at, ...extent, class: "bar" }));
  group.append(
    element("line", { x1: place.x + 3, x2: place.x + place.size - 3, y1: middle, y2: middle, class: "axis" }),
  );
}

// A frame around the channels of each group.
function outlineGroups(canvas, c, { outs, ins }, { left, top, size, height, perIn, perOut }) {
  const { groups } = c.geometry;
  if (groups === 1 || c.inGroup * size < 5 * perIn) return;
  for (let n = 0; n < groups; n += 1) {
    const cut = (value, [from, until]) => Math.max(from, Math.min(until, value)) - from;
    const [x, right] = [cut(n * c.inGroup, ins), cut((n + 1) * c.inGroup, ins)];
    const [y, bottom] = [cut(n * c.outGroup, outs), cut((n + 1) * c.outGroup, outs)];
    if (right === x || bottom === y) continue;
    const place = { x: left + (x / perIn) * size, y: top + (y / perOut) * height };
    const extent = { width: ((right - x) / perIn) * size, height: ((bottom - y) / perOut) * height };
    canvas.add(element("rect", { ...place, ...extent, rx: 3, class: "group" }));
  }
}
