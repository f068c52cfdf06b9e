// The shapes, and the formula of the length: each symbol with its number, tied to its control and its place in the figure.
import { node, refocus } from "./dom.js";
import { phrase } from "./words.js";

const token = (page, symbol, name, value) =>
  node(
    "button",
    {
      type: "button",
      class: "symbol",
      "data-symbol": symbol,
      "data-control": `symbol-${symbol}`,
      "aria-label": `${name}, ${value}`,
      onclick: () => page.openControl(symbol),
    },
    node("b", {}, name),
    node("span", {}, String(value)),
  );

export function showFormula(page, c) {
  const g = c.geometry;
  const values = {
    L_out: page.lengthIsAsked ? phrase("asked") : c.outputs,
    L: c.length,
    left: g.left,
    right: g.right,
    dilation: g.dilation,
    K: g.kernelSize,
    stride: g.stride,
    output_padding: g.outputPadding,
  };
  const line = g.transposed
    ? [
        "L_out",
        "= (",
        "L",
        "− 1) ·",
        "stride",
        "+",
        "dilation",
        "· (",
        "K",
        "− 1) + 1 +",
        "output_padding",
        "−",
        "left",
        "−",
        "right",
      ]
    : [
        "L_out",
        "= floor((",
        "L",
        "+",
        "left",
        "+",
        "right",
        "−",
        "dilation",
        "· (",
        "K",
        "− 1) − 1) /",
        "stride",
        ") + 1",
      ];
  const parts = line.map((part) =>
    part in values
      ? token(page, part, part.replace("_", part === "L_out" ? "_" : " "), values[part])
      : node("span", { class: "operator" }, part),
  );
  const top = c.length + g.left + g.right - g.effective;
  const counted = g.transposed
    ? `= ${(c.length - 1) * g.stride} + ${g.effective} + ${g.outputPadding} − ${g.left} − ${g.right} = ${c.outputs}`
    : `= floor(${top} / ${g.stride}) + 1 = ${Math.floor(top / g.stride)} + 1 = ${c.outputs}`;
  const end = page.lengthIsAsked ? [] : [node("span", { class: "operator counted" }, counted)];
  refocus(page.formula, [...parts, ...end]);
}

// (1, 3, 10) -> (2, 3, 3) -> (1, 2, 8), each with its axes.
export function showShapes(page, c) {
  const { x, weight } = page.state;
  const axes = c.geometry.transposed
    ? "(in_channels, out_channels/groups, K)"
    : "(out_channels, in_channels/groups, K)";
  const shape = (kind, name, sizes, words) =>
    node("span", { class: `shape ${kind}` }, node("b", {}, name), ` (${sizes.join(", ")})`, node("small", {}, words));
  const arrow = () => node("span", { class: "arrow", "aria-hidden": "true" }, "→");
  page.shapes.replaceChildren(
    shape("input", "x", [1, x.length, c.length], "(batch, channels, length)"),
    arrow(),
    shape("tap", "weight", [weight.length, weight[0].length, c.geometry.kernelSize], axes),
    arrow(),
    shape(
      "output",
      "output",
      [1, c.channels, page.lengthIsAsked ? phrase("asked") : c.outputs],
      "(batch, channels, L_out)",
    ),
  );
}
