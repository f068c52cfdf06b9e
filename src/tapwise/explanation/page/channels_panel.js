// The panel of channels: the weights of every pair of channels, and the taps and products of the one that is chosen.
import { button } from "./controls.js";
import { node } from "./dom.js";
import { drawWeights } from "./figure_channels.js";
import { enableCells } from "./keyboard.js";
import { PrintedSum, short } from "./numbers.js";
import { phrase } from "./words.js";

export function buildChannels(page) {
  page.pair = null;
  page.block = null;
  page.weights = node("div", { class: "holder" });
  page.pairWords = node("div", { "aria-live": "polite" });
  page.channelWords = node("ul", { class: "words" });
  page.allChannels = button("All channels", () => openBlock(page, null), "all-channels");
  page.panels.channels.append(
    node("p", { class: "help" }, phrase("channels_help")),
    page.allChannels,
    page.weights,
    page.pairWords,
    page.channelWords,
  );
  enableCells(page.weights, (key) => press(page, key));
}

function openBlock(page, block) {
  page.block = block;
  page.show();
  const cell = page.weights.querySelector("[tabindex='0']");
  if (document.activeElement === document.body && cell) cell.focus();
}

function press(page, key) {
  const [kind, ...places] = key.split(":");
  const at = places.map(Number);
  if (kind === "p") {
    page.pair = at;
    page.attempt(() => ({ channel: at[0] }));
  } else openBlock(page, { outs: [at[0], at[1]], ins: [at[2], at[3]] });
}

function readsAny(c, { outs, ins }) {
  for (let o = outs[0]; o < outs[1]; o += 1) if (c.inputs(o).some((i) => i >= ins[0] && i < ins[1])) return true;
  return false;
}

export function showChannels(page, c) {
  const { weight, x, bias, transposed, output } = page.state;
  const fits = ([o, i]) => o < c.channels && i < x.length && c.inputs(o).includes(i);
  const { channel } = page.state;
  if (page.pair === null || !fits(page.pair) || page.pair[0] !== channel) {
    const same = page.pair && c.inputs(channel).includes(page.pair[1]);
    page.pair = [channel, same ? page.pair[1] : c.inputs(channel)[0]];
  }
  if (page.block && (page.block.outs[1] > c.channels || page.block.ins[1] > x.length)) page.block = null;
  // A block of pairs that groups have parted since is none to look into.
  if (page.block && !readsAny(c, page.block)) page.block = null;
  const drawn = drawWeights(c, LAYOUT, page.width(), page);
  page.weights.replaceChildren(drawn.svg);
  const cells = [...page.weights.querySelectorAll("[data-key]")];
  const first = cells.find((cell) => cell.dataset.key === `p:${page.pair.join(":")}`) || cells[0];
  if (first) first.setAttribute("tabindex", "0");
  page.allChannels.hidden = page.block === null;

  const [o, i] = page.pair;
  const row = c.inputs(o).indexOf(i);
  const step = c.step(o, Math.min(output, c.outputs - 1));
  const mine = step.rows[row];
  const sum = new PrintedSum(mine.products);
  const units = mine.products.map((product) => sum.units(product));
  const list = (values) =>
    (values.length > 24 ? [...values.slice(0, 12), "…", ...values.slice(-4)] : values).join(", ");
  page.pairWords.replaceChildren(
    node(
      "p",
      { class: "sentence" },
      phrase("pair", { outer: c.place(o, row).join(", "), taps: list(c.taps(o, row).map(short)), o, i }),
    ),
    node(
      "p",
      { class: "caption" },
      phrase("pair_products", {
        output: step.output,
        o,
        i,
        sum: units.length ? sum.line(units, 10) : phrase("no_input"),
        total: sum.text(sum.total(mine.products)),
      }),
    ),
  );
  const names = transposed ? "in_channels, out_channels/groups" : "out_channels, in_channels/groups";
  const taps = c.geometry.kernelSize;
  const counts = { channels: c.channels, reads: c.inGroup, taps, inputs: x.length, n: c.channels * c.inGroup * taps };
  const withBias = bias === null ? "" : phrase("weights_bias", { n: c.channels });
  const lines = [
    phrase("weight", { sizes: [weight.length, weight[0].length, taps].join(", "), names: `${names}, kernel_size` }),
    phrase("channels_read", counts),
    phrase("weights", { ...counts, bias: withBias }),
  ];
  if (drawn.perIn > 1 || drawn.perOut > 1) lines.unshift(phrase("blocks", { ins: drawn.perIn, outs: drawn.perOut }));
  page.channelWords.replaceChildren(...lines.map((line) => node("li", {}, line)));
}
