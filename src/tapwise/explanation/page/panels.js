// The other panels: stack, response, code, and why this kernel.
import { commandCode, numpyCode, tapwiseCode, torchCode } from "./code.js";
import { button } from "./controls.js";
import { PADDING_WORDS, receptiveField, stackGeometries } from "./convolution.js";
import { node, refocus } from "./dom.js";
import { drawResponse } from "./figure_response.js";
import { drawCone } from "./figure_stack.js";
import { copyText } from "./share.js";
import { NUMBERS } from "./state.js";
import { phrase, plural } from "./words.js";

const bullets = (...lines) => node("ul", { class: "words" }, ...lines.map((line) => node("li", {}, line)));
const barOf = (...parts) => node("div", { class: "bar" }, ...parts);
const holderOf = (part) => node("div", { class: "holder" }, part);

// The fields of one layer: its name, three numbers and its padding.
function layerFields(page, n) {
  const { layers } = page.state;
  const layer = layers[n];
  const change = (name, value) =>
    page.attempt(() => ({ layers: layers.map((other, m) => (m === n ? { ...other, [name]: value } : other)) }));
  const number = (name) => {
    const label = `${name.replace("_", " ")} of layer ${n + 1}`;
    const onchange = (event) => change(name, Number(event.target.value));
    const attributes = { "aria-label": label, "data-control": `${name}-${n}`, onchange };
    const input = node("input", { type: "number", min: 1, value: layer[name], ...attributes });
    return node("label", { class: "number" }, node("span", {}, name.replace("_", " ")), input);
  };
  const words = typeof layer.padding === "string" ? PADDING_WORDS : [...PADDING_WORDS, String(layer.padding)];
  const onchange = (event) => {
    const { value } = event.target;
    change("padding", value.includes(",") ? value.split(",").map(Number) : value);
  };
  const padding = node(
    "select",
    { "aria-label": `padding of layer ${n + 1}`, "data-control": `padding-${n}`, onchange },
    ...words.map((word) => node("option", { value: word, selected: word === String(layer.padding) }, word)),
  );
  const name = layer.name ? `${layer.name}, as loaded` : `layer ${n + 1}`;
  const numbers = ["kernel_size", "stride", "dilation"].map(number);
  const padded = node("label", {}, node("span", {}, "padding"), padding);
  return node("fieldset", { class: "layer fields" }, node("legend", {}, name), ...numbers, padded);
}

export function showStack(page) {
  const { layers } = page.state;
  const geometries = stackGeometries(layers);
  const field = receptiveField(geometries);
  const width = field.last - field.first + 1;
  const add = () => page.attempt(() => ({ layers: [...layers, { ...layers.at(-1), name: "" }] }));
  const remove = button("Remove the last", () => page.attempt(() => ({ layers: layers.slice(0, -1) })), "remove-layer");
  remove.disabled = layers.length === 1;
  const parts = [
    ...(page.state.transposed ? [node("p", { class: "help" }, phrase("other_stack"))] : []),
    node("div", { class: "controls layers" }, ...layers.map((_, n) => layerFields(page, n))),
    barOf(button("Add a layer", add, "add-layer"), remove),
  ];
  const output = Math.max(0, Math.ceil(-field.first / field.stride));
  if (width <= 4000) parts.push(holderOf(drawCone(geometries, LAYOUT, page.width(), output)));
  const holes = field.holes ? phrase("field_holes", { n: field.holes }) : phrase("field_full");
  const future = phrase(field.future ? "stack_future" : "stack_causal", { future: plural(field.future, "sample") });
  parts.push(bullets(phrase("field", { ...field, width, holes }), phrase("stack_stride", field), future));
  refocus(page.panels.stack, parts);
}

// The choice of one channel, from those that are listed.
function channelSelect(label, name, options, chosen, choose) {
  return node(
    "select",
    { "aria-label": label, "data-control": name, onchange: (event) => choose(Number(event.target.value)) },
    ...options.map((text, n) => node("option", { value: n, selected: n === chosen }, text)),
  );
}

export function showResponse(page, c) {
  const { channel } = page.state;
  const g = c.geometry;
  if (g.transposed) {
    page.panels.response.replaceChildren(node("p", {}, phrase("no_response")));
    return;
  }
  const inputs = c.inputs(channel);
  const row = Math.min(page.row || 0, inputs.length - 1);
  const selects = [];
  if (c.channels > 1) {
    const outputs = Array.from({ length: c.channels }, (_, o) => `to output channel ${o}`);
    const choose = (o) => page.attempt(() => ({ channel: o }));
    selects.push(channelSelect("output channel", "response-out", outputs, channel, choose));
  }
  if (inputs.length > 1) {
    const from = inputs.map((input) => `from input channel ${input}`);
    const choose = (r) => {
      page.row = r;
      page.show();
    };
    selects.push(channelSelect("input channel", "response-in", from, row, choose));
  }
  const early = phrase(g.left >= g.effective - 1 ? "delay_causal" : "delay_ahead");
  refocus(page.panels.response, [
    ...(selects.length ? [barOf(...selects)] : []),
    holderOf(drawResponse(c.taps(channel, row), g, LAYOUT, page.width())),
    bullets(phrase("magnitude"), phrase("delay", { left: g.left, early })),
  ]);
}

const CODE = { PyTorch: torchCode, Tapwise: tapwiseCode, NumPy: numpyCode, Command: commandCode };

export function showCode(page, c) {
  const { state } = page;
  const parts = [];
  if (state.x[0].length * state.x.length > 2000) parts.push(node("p", {}, phrase("long_code")));
  for (const [name, make] of Object.entries(CODE)) {
    const text = make(state, c.geometry);
    const cut = `${text.slice(0, 2000)}\n${phrase("cut_code", { n: text.length })}`;
    parts.push(
      node("h2", {}, name),
      barOf(button(`Copy ${name}`, () => copyText(page, text), `copy-${name}`)),
      node("pre", { "data-code": name, tabindex: "0" }, text.length > 40000 ? cut : text),
    );
  }
  refocus(page.panels.code, parts);
}

// The plan is of the layer as it was loaded, whatever the settings are now.
export function showPlan(page) {
  const { plan } = page.state;
  const moved = NUMBERS.some((name) => JSON.stringify(page.state[name]) !== JSON.stringify(page.begin[name]));
  const parts = [node("p", {}, phrase("plan"))];
  if (moved) parts.push(node("p", { class: "news" }, phrase("plan_of_before")));
  if (plan) parts.push(node("pre", { tabindex: "0" }, plan));
  page.panels.plan.replaceChildren(...parts);
}
