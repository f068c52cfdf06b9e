// The settings: every control, what it shows and what it changes.
import { PADDING_MODES, PADDING_WORDS } from "./convolution.js";
import { node } from "./dom.js";
import { TUTORIAL, copy, resized } from "./state.js";

const paddingCounts = (p) => [p.convolution.geometry.left, p.convolution.geometry.right];
const NUMBERS_BELOW = "as below";

// Each is [kind, name, label, what it shows, the change that a value asks for].
const CONTROLS = [
  ["number", "length", "length", (p) => p.state.x[0].length, (p, length) => resized(p.state, { length })],
  ["number", "kernel_size", "kernel size", (p) => p.convolution.geometry.kernelSize, resizeTaps],
  ["number", "stride", "stride", (p) => p.state.stride, (p, stride) => ({ stride })],
  ["number", "dilation", "dilation", (p) => p.state.dilation, (p, dilation) => ({ dilation })],
  [
    "select",
    "padding",
    "padding",
    paddingWord,
    (p, value) => ({ padding: value === NUMBERS_BELOW ? paddingCounts(p) : value }),
  ],
  ["number", "left", "left", (p) => paddingCounts(p)[0], (p, left) => ({ padding: [left, paddingCounts(p)[1]] })],
  ["number", "right", "right", (p) => paddingCounts(p)[1], (p, right) => ({ padding: [paddingCounts(p)[0], right] })],
  ["select", "padding_mode", "padding mode", (p) => p.state.padding_mode, (p, padding_mode) => ({ padding_mode })],
  [
    "number",
    "in_channels",
    "input channels",
    (p) => p.state.x.length,
    (p, n) => resizeChannels(p, n, p.convolution.channels),
  ],
  [
    "number",
    "out_channels",
    "output channels",
    (p) => p.convolution.channels,
    (p, n) => resizeChannels(p, p.state.x.length, n),
  ],
  ["number", "groups", "groups", (p) => p.state.groups, (p, groups) => resized(p.state, { groups })],
  [
    "check",
    "has_bias",
    "bias",
    (p) => p.state.bias !== null,
    (p, on) => ({ bias: on ? zeros(p.convolution.channels) : null }),
  ],
  ["number", "bias", "its value", (p) => (p.state.bias === null ? "" : p.state.bias[p.state.channel]), changeBias],
  ["check", "transposed", "transposed", (p) => p.state.transposed, transpose],
  ["number", "output_padding", "output padding", (p) => p.state.output_padding, (p, n) => ({ output_padding: n })],
];
const OPTIONS = { padding: [...PADDING_WORDS, NUMBERS_BELOW], padding_mode: PADDING_MODES };
const LEAST = { left: 0, right: 0, output_padding: 0 };

const zeros = (count) => new Array(count).fill(0);

function resizeTaps(page, kernelSize) {
  return resized(page.state, { kernelSize });
}

function paddingWord(page) {
  return typeof page.state.padding === "string" ? page.state.padding : NUMBERS_BELOW;
}

// Channels that the groups don't divide are taken without groups.
function resizeChannels(page, ins, outs) {
  const divided = ins % page.state.groups === 0 && outs % page.state.groups === 0;
  const sizes = divided ? {} : { groups: 1 };
  if (ins !== page.state.x.length || !divided) sizes.ins = ins;
  if (outs !== page.convolution.channels || !divided) sizes.outs = outs;
  return resized(page.state, sizes);
}

function changeBias(page, value) {
  return { bias: page.state.bias.map((old, o) => (o === page.state.channel ? value : old)) };
}

function transpose(page, on) {
  const { state } = page;
  const keepsPadding = typeof state.padding !== "string" || state.padding === "causal" || !on;
  return {
    ...resized(state, { transposed: on }),
    padding: keepsPadding ? state.padding : [0, 0],
    padding_mode: on ? "zeros" : state.padding_mode,
    output_padding: 0,
  };
}

export function button(label, press, name) {
  return node("button", { type: "button", "data-control": name, onclick: press }, label);
}

function control(page, [kind, name, label, get, change]) {
  const number = kind === "number" ? Number : (text) => text;
  const value = () => (kind === "check" ? input.checked : number(input.value));
  const attributes = { "data-control": name, onchange: () => page.attempt(() => change(page, value()), input) };
  let input;
  if (kind === "select") {
    input = node("select", attributes, ...OPTIONS[name].map((option) => node("option", { value: option }, option)));
  } else if (kind === "check") input = node("input", { type: "checkbox", ...attributes });
  else if (name === "bias") input = node("input", { type: "number", step: "any", ...attributes });
  else input = node("input", { type: "number", min: LEAST[name] ?? 1, step: 1, ...attributes });
  page.controls[name] = { input, get };
  return node("label", {}, label, input);
}

export function buildControls(page) {
  page.controls = {};
  const submit = (event) => event.preventDefault();
  return node(
    "form",
    { class: "controls", "aria-label": "Settings", onsubmit: submit },
    ...CONTROLS.map((row) => control(page, row)),
    node(
      "div",
      { class: "bar" },
      button("Start again", () => page.attempt(() => copy(page.begin)), "reset"),
      button("The tutorial's", () => page.attempt(() => copy(TUTORIAL)), "tutorial"),
    ),
  );
}

// The controls show the state, but for what is being typed.
export function showControls(page) {
  const { state } = page;
  for (const [name, { input, get }] of Object.entries(page.controls)) {
    if (input.type === "checkbox") input.checked = get(page);
    else if (!page.redrawing || input !== document.activeElement) input.value = get(page);
    if (!page.trouble) input.removeAttribute("aria-invalid");
    if (name === "bias") input.disabled = state.bias === null;
    if (name === "output_padding") input.disabled = !state.transposed;
    if (name === "padding_mode") input.disabled = state.transposed;
  }
}
