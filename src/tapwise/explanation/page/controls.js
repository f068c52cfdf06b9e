// The settings: every control, what it shows and what it changes.
import { PADDING_MODES, PADDING_WORDS } from "./convolution.js";
import { node } from "./dom.js";
import { TUTORIAL, copy, resized } from "./state.js";

export function button(label, press, name) {
  return node("button", { type: "button", "data-control": name, onclick: press }, label);
}

export function buildControls(page) {
  const number = (name, label, get, make, least, extra = {}) => {
    const input = node("input", {
      type: "number",
      min: least,
      step: 1,
      "data-control": name,
      onchange: () => page.attempt(() => make(Number(input.value)), input),
      ...extra,
    });
    page.controls[name] = { input, get };
    return node("label", {}, label, input);
  };
  const select = (name, label, options, get, make) => {
    const input = node(
      "select",
      { "data-control": name, onchange: () => page.attempt(() => make(input.value), input) },
      ...options.map((option) => node("option", { value: option }, option)),
    );
    page.controls[name] = { input, get };
    return node("label", {}, label, input);
  };
  const check = (name, label, get, make) => {
    const input = node("input", {
      type: "checkbox",
      "data-control": name,
      onchange: () => page.attempt(() => make(input.checked), input),
    });
    page.controls[name] = { input, get };
    return node("label", {}, label, input);
  };
  page.controls = {};
  const s = () => page.state;
  const g = () => page.convolution.geometry;
  const side = (n) => (value) => {
    const pair = [g().left, g().right];
    pair[n] = value;
    return { padding: pair };
  };
  return node(
    "form",
    { class: "controls", "aria-label": "Settings", onsubmit: (event) => event.preventDefault() },
    number(
      "length",
      "length",
      () => s().x[0].length,
      (length) => resized(s(), { length }),
      1,
    ),
    number(
      "kernel_size",
      "kernel size",
      () => g().kernelSize,
      (kernelSize) => resized(s(), { kernelSize }),
      1,
    ),
    number(
      "stride",
      "stride",
      () => s().stride,
      (stride) => ({ stride }),
      1,
    ),
    number(
      "dilation",
      "dilation",
      () => s().dilation,
      (dilation) => ({ dilation }),
      1,
    ),
    select(
      "padding",
      "padding",
      [...PADDING_WORDS, "as below"],
      () => (typeof s().padding === "string" ? s().padding : "as below"),
      (value) => ({ padding: value === "as below" ? [g().left, g().right] : value }),
    ),
    number("left", "left", () => g().left, side(0), 0),
    number("right", "right", () => g().right, side(1), 0),
    select(
      "padding_mode",
      "padding mode",
      PADDING_MODES,
      () => s().padding_mode,
      (padding_mode) => ({ padding_mode }),
    ),
    number(
      "in_channels",
      "input channels",
      () => s().x.length,
      (ins) => resized(s(), { ins, ...groupsFor(page, ins, page.convolution.channels) }),
      1,
    ),
    number(
      "out_channels",
      "output channels",
      () => page.convolution.channels,
      (outs) => resized(s(), { outs, ...groupsFor(page, s().x.length, outs) }),
      1,
    ),
    number(
      "groups",
      "groups",
      () => s().groups,
      (groups) => resized(s(), { groups }),
      1,
    ),
    check(
      "has_bias",
      "bias",
      () => s().bias !== null,
      (on) => ({ bias: on ? new Array(page.convolution.channels).fill(0) : null }),
    ),
    number(
      "bias",
      "its value",
      () => (s().bias === null ? "" : s().bias[s().channel]),
      (value) => ({ bias: s().bias.map((old, o) => (o === s().channel ? value : old)) }),
      undefined,
      { step: "any", min: undefined },
    ),
    check(
      "transposed",
      "transposed",
      () => s().transposed,
      (on) => ({
        ...resized(s(), { transposed: on }),
        padding: typeof s().padding === "string" && s().padding !== "causal" && on ? [0, 0] : s().padding,
        padding_mode: on ? "zeros" : s().padding_mode,
        output_padding: 0,
      }),
    ),
    number(
      "output_padding",
      "output padding",
      () => s().output_padding,
      (output_padding) => ({ output_padding }),
      0,
    ),
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
    if (input.type === "checkbox") input.checked = get();
    else if (!page.redrawing || input !== document.activeElement) input.value = get(); // not what is being typed
    if (!page.trouble) input.removeAttribute("aria-invalid");
    if (name === "bias") input.disabled = state.bias === null;
    if (name === "output_padding") input.disabled = !state.transposed;
    if (name === "padding_mode") input.disabled = state.transposed;
  }
}

// Channels that the groups don't divide are taken without groups.
export function groupsFor(page, ins, outs) {
  return ins % page.state.groups || outs % page.state.groups ? { groups: 1, ins, outs } : {};
}
