// The settings: every control, what it shows and what it changes.
import { PADDING_MODES, PADDING_WORDS } from "./convolution.js";
import { node } from "./dom.js";
import { resized } from "./state.js";

const paddingCounts = (p) => [p.convolution.geometry.left, p.convolution.geometry.right];
const TWO_NUMBERS = "left, right";

// Each is {name, label, symbol in the length formula, what it shows, the change that a value asks for}.
const FIRST = [
  {
    name: "kernel_size",
    label: "kernel size",
    symbol: "K",
    get: (p) => p.convolution.geometry.kernelSize,
    change: resizeTaps,
  },
  {
    name: "stride",
    label: "stride",
    symbol: "stride",
    get: (p) => p.state.stride,
    change: (p, stride) => ({ stride }),
  },
  {
    name: "dilation",
    label: "dilation",
    symbol: "dilation",
    get: (p) => p.state.dilation,
    change: (p, dilation) => ({ dilation }),
  },
  { name: "padding", label: "padding", kind: "select", get: paddingWord, change: changePadding },
  {
    name: "left",
    label: "left",
    symbol: "left",
    get: (p) => paddingCounts(p)[0],
    change: (p, n) => ({ padding: [n, paddingCounts(p)[1]] }),
  },
  {
    name: "right",
    label: "right",
    symbol: "right",
    get: (p) => paddingCounts(p)[1],
    change: (p, n) => ({ padding: [paddingCounts(p)[0], n] }),
  },
];
const MORE = [
  {
    name: "length",
    label: "length",
    symbol: "L",
    get: (p) => p.state.x[0].length,
    change: (p, length) => resized(p.state, { length }),
  },
  {
    name: "in_channels",
    label: "input channels",
    get: (p) => p.state.x.length,
    change: (p, n) => resizeChannels(p, n, p.convolution.channels),
  },
  {
    name: "out_channels",
    label: "output channels",
    get: (p) => p.convolution.channels,
    change: (p, n) => resizeChannels(p, p.state.x.length, n),
  },
  { name: "groups", label: "groups", get: (p) => p.state.groups, change: (p, groups) => resized(p.state, { groups }) },
  {
    name: "padding_mode",
    label: "padding mode",
    kind: "select",
    get: (p) => p.state.padding_mode,
    change: (p, padding_mode) => ({ padding_mode }),
  },
  {
    name: "has_bias",
    label: "bias",
    kind: "check",
    get: (p) => p.state.bias !== null,
    change: (p, on) => ({ bias: on ? zeros(p.convolution.channels) : null }),
  },
  { name: "bias", label: "bias value", kind: "real", get: biasOfChannel, change: changeBias },
  { name: "transposed", label: "transposed", kind: "check", get: (p) => p.state.transposed, change: transpose },
  {
    name: "output_padding",
    label: "output padding",
    symbol: "output_padding",
    get: (p) => p.convolution.geometry.outputPadding,
    change: (p, n) => ({ output_padding: n }),
  },
];
export const CONTROLS = Object.fromEntries([...FIRST, ...MORE].map((row) => [row.name, row]));
const OPTIONS = { padding: [...PADDING_WORDS, TWO_NUMBERS], padding_mode: PADDING_MODES };
const LEAST = { left: 0, right: 0, output_padding: 0 };

const zeros = (count) => new Array(count).fill(0);

function resizeTaps(page, kernelSize) {
  return resized(page.state, { kernelSize });
}

function paddingWord(page) {
  return typeof page.state.padding === "string" ? page.state.padding : TWO_NUMBERS;
}

function changePadding(page, value) {
  return { padding: value === TWO_NUMBERS ? paddingCounts(page) : value };
}

// Channels that the groups don't divide are taken without groups.
function resizeChannels(page, ins, outs) {
  const divided = ins % page.state.groups === 0 && outs % page.state.groups === 0;
  const sizes = divided ? {} : { groups: 1 };
  if (ins !== page.state.x.length || !divided) sizes.ins = ins;
  if (outs !== page.convolution.channels || !divided) sizes.outs = outs;
  return resized(page.state, sizes);
}

function biasOfChannel(page) {
  return page.state.bias === null ? "" : Number(page.state.bias[page.state.channel].toPrecision(7));
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

// What a change of one setting did to the others, as "groups 2 → 1"; padding that follows its word is no news.
export function settingsOf(page) {
  const shown = Object.fromEntries(Object.values(CONTROLS).map(({ name, get }) => [name, get(page)]));
  if (shown.padding !== TWO_NUMBERS) {
    delete shown.left;
    delete shown.right;
  }
  delete shown.bias;
  return shown;
}

const TOGETHER = { padding: ["left", "right"], left: ["padding"], right: ["padding"] };

export function otherChanges(before, after, name) {
  const own = [name, ...(TOGETHER[name] || [])];
  const spoken = (value) => ({ true: "on", false: "off" })[value] ?? value;
  return Object.keys(after)
    .filter((other) => !own.includes(other) && other in before && before[other] !== after[other])
    .map((other) => `${CONTROLS[other].label} ${spoken(before[other])} → ${spoken(after[other])}`);
}

export function button(label, press, name) {
  return node("button", { type: "button", "data-control": name, onclick: press }, label);
}

function control(page, { name, label, symbol, kind = "number", get }) {
  const number = kind === "number" || kind === "real" ? Number : (text) => text;
  const value = () => (kind === "check" ? input.checked : number(input.value));
  const attributes = { "data-control": name, onchange: () => page.change(name, value()) };
  let input;
  if (kind === "select") {
    input = node("select", attributes, ...OPTIONS[name].map((option) => node("option", { value: option }, option)));
  } else if (kind === "check") input = node("input", { type: "checkbox", ...attributes });
  else if (kind === "real") input = node("input", { type: "number", step: "any", ...attributes });
  else input = node("input", { type: "number", min: LEAST[name] ?? 1, step: 1, ...attributes });
  page.controls[name] = { input, get };
  const mark = symbol && symbol !== name && symbol.length === 1 ? [" ", node("b", {}, symbol)] : [];
  return node("label", { "data-symbol": symbol, class: kind }, node("span", {}, label, ...mark), input);
}

export function buildControls(page) {
  page.controls = {};
  page.more = node(
    "details",
    { class: "more" },
    node("summary", { "data-control": "more" }, "More settings"),
    node("div", { class: "fields" }, ...MORE.map((row) => control(page, row))),
  );
  return node(
    "form",
    { class: "controls", "aria-label": "Settings", onsubmit: (event) => event.preventDefault() },
    node("div", { class: "fields" }, ...FIRST.map((row) => control(page, row))),
    page.more,
  );
}

// Settings that a first look can do without.
function hasMore({ state, convolution }) {
  return (
    state.x.length > 1 ||
    convolution.channels > 1 ||
    state.bias !== null ||
    state.transposed ||
    state.padding_mode !== "zeros"
  );
}

// Settings that mean nothing beside others.
export function isDisabled(state, name) {
  if (name === "bias") return state.bias === null;
  if (name === "output_padding") return !state.transposed || state.padding === "causal";
  return name === "padding_mode" && state.transposed;
}

// The controls show the state, but for what is being typed and what was refused.
export function showControls(page) {
  const { state } = page;
  for (const [name, { input, get }] of Object.entries(page.controls)) {
    const waits = page.waiting.has(name);
    const typed = page.redrawing && input === document.activeElement;
    if (input.type === "checkbox") input.checked = get(page);
    else if (!waits && !typed) input.value = get(page);
    input.setAttribute("aria-invalid", String(waits));
    input.disabled = isDisabled(state, name);
    if (name === "padding")
      for (const option of input.options)
        option.disabled = state.transposed && !["causal", TWO_NUMBERS].includes(option.value);
  }
  if (!page.opened && state.lesson === null && hasMore(page) && page.root.clientWidth > 760) {
    page.more.open = true;
    page.opened = true;
  }
}
