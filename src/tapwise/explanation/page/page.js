// The page: controls, panels and keys around the figures. CSS and LAYOUT are put before by the build.
import { Convolution, PADDING_MODES, PADDING_WORDS, Refusal, ahead, feeds, outputLength, receptiveField, stackGeometries, unread } from "./convolution.js";
import { drawChannels, drawCone, drawOverview, drawResponse, drawWindow, element, ties } from "./drawing.js";
import { commandCode, numpyCode, tapwiseCode, torchCode } from "./code.js";
import { NUMBERS, TABS, TUTORIAL, changed, copy, encoded, fromHash, resized, toHash } from "./state.js";

const LABELS = { window: "Steps", channels: "Channels", stack: "Stack", response: "Response", code: "Code", plan: "Why this kernel" };

function node(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== undefined && value !== false) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// A number as the text explanation writes it: 3.0.
function written(value) {
  if (!Number.isFinite(value)) return String(value).replace("Infinity", "inf").replace("NaN", "nan");
  const exact = Number(value.toPrecision(8));
  return Number.isInteger(exact) && Math.abs(exact) < 1e16 ? `${exact}.0` : String(exact);
}
const brief = (value) => (Number.isInteger(value) ? `${value}.` : written(Number(value.toPrecision(5))));

export function sentence(step) {
  const shorten = (parts) => (parts.length > 24 ? [...parts.slice(0, 4), "...", ...parts.slice(-4)] : parts);
  const sums = step.rows.map((row) => {
    const values = row.values.map((value, n) => (step.padded[n] ? `(${brief(value)})` : brief(value)));
    return `sum([${shorten(values).join(" ")}]*[${shorten(row.taps.map(brief)).join(" ")}])`;
  });
  const shown = sums.length > 4 ? [...sums.slice(0, 2), `... ${sums.length - 3} more channels ...`, sums[sums.length - 1]] : sums;
  const bias = step.bias === null ? "" : ` ${step.bias < 0 ? "-" : "+"} ${written(Math.abs(step.bias))}`;
  return `Step ${step.output}: ${step.positions.length ? shown.join(" + ") : "0 (no input reaches it)"}${bias} = ${written(step.sum)}`;
}

// What the numbers mean, as sentences with the reader's own numbers in them.
export function words(c, state) {
  const g = c.geometry;
  const lines = [];
  const plural = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
  if (g.transposed) {
    lines.push(`How long is the output? (${c.length} - 1)*${g.stride} + ${g.reach} - ${g.left} - ${g.right} + ${g.outputPadding} = ${c.outputs}.`);
    lines.push(`Each input spreads its taps over the outputs, ${plural(g.stride, "output")} after the input before; where they overlap they add up.`);
  } else {
    const rest = (c.length + g.left + g.right - g.reach) % g.stride;
    lines.push(`How long is the output? floor((${c.length} + ${g.left} + ${g.right} - ${g.reach}) / ${g.stride}) + 1 = ${c.outputs}${rest ? `. The stride doesn't divide: the last ${plural(rest, "position")} of the padded input ${rest === 1 ? "is" : "are"} not reached${unread(g, c.length) ? ", drawn in grey" : ""}` : ""}.`);
    const future = ahead(g, c.length, c.outputs);
    const copied = future > g.reach - 1 - g.left;
    lines.push(future <= 0
      ? `Does it see the future? No: it is causal. ${g.left} padded on the left, (K - 1)*dilation = ${g.reach - 1}: output i reads no input after ${g.stride === 1 ? "i" : `i*${g.stride}`}.${future < 0 ? ` Its newest sample even comes ${-future} late.` : g.reach === 1 ? "" : " Compared with no padding, every output stands that much later, under the last sample that it reads."}`
      : `Does it see the future? Yes: output i reads inputs up to ${g.stride === 1 ? "i" : `i*${g.stride}`} + ${future}${copied ? `, through the copies that ${g.mode} padding makes of later samples; padded with zeros ${g.reach - 1 - g.left <= 0 ? "it would not" : `it would see ${g.reach - 1 - g.left}`}.` : `. Causal padding would be ${g.reach - 1} on the left and none on the right.`}`);
  }
  if (!g.transposed && (g.mode === "zeros" || g.left + g.right < 2000)) {
    const middle = Math.floor(c.length / 2);
    const period = Array.from({ length: Math.min(g.stride, c.length - middle) }, (_, n) => middle + n);
    const lost = period.filter((p) => p < c.length - unread(g, c.length) && feeds(g, p, c.length).length === 0).length;
    if (lost) lines.push(`Is every sample used? No: stride ${g.stride} and dilation ${g.dilation} leave out about ${lost} of every ${g.stride}, drawn in grey.`);
  }
  const reads = c.inGroup;
  lines.push(g.groups > 1
    ? `What do channels do? ${plural(g.groups, "group")}: each output channel sums the ${plural(reads, "input channel")} of its group only, each with taps of its own.`
    : `What do channels do? Each output channel sums ${reads === 1 ? "the one input channel" : `all ${reads} input channels, each with taps of its own`}${state.bias === null ? "" : ", and its bias"}.`);
  if (g.transposed) {
    const early = Math.ceil(g.left / g.stride);
    lines.push(early > 0 ? `Does it see the future? Yes: ${plural(g.left, "output")} cut on the left: output j reads inputs up to floor((j + ${g.left}) / ${g.stride}).` : `Does it see the future? No: nothing is cut on the left, so output j reads no input after floor(j / ${g.stride}).`);
    if (g.dilation > 1 && g.kernelSize > 1) lines.push(`What does dilation do? The taps of one input land ${g.dilation} outputs apart.`);
  } else if (g.dilation > 1 && g.kernelSize > 1) lines.push(`Where are the holes? ${plural(g.dilation - 1, "sample")} between two taps ${g.dilation === 2 ? "is" : "are"} not read: ${g.kernelSize} taps reach over ${g.reach} samples.`);
  lines.push(g.transposed ? "Correlation or convolution? A convolution: each input lays the taps down as they stand, which turns them round as seen from an output." : "Correlation or convolution? The taps are laid on as they stand, which is a correlation; numpy.convolve would turn them round first.");
  lines.push(`For a Linear layer after it: ${plural(c.channels, "channel")} x ${c.outputs} = ${c.channels * c.outputs} numbers a signal. x is (batch, channels, length) = (1, ${state.x.length}, ${c.length}).`);
  return lines;
}

export class Page {
  constructor(root, initial, host) {
    this.root = root;
    this.host = host;
    this.lit = null;
    this.timer = null;
    this.state = changed(TUTORIAL, {});
    try { this.state = changed(this.state, initial || {}); } catch (error) { this.trouble = error.message; }
    this.begin = copy(this.state);
    this.build();
    this.compute();
  }

  set(partial) {
    this.state = changed(this.state, partial);
    this.trouble = "";
    this.hand.replaceChildren();
    this.compute();
    if (this.host.changed) this.host.changed(this);
  }

  // A change that a control asks for: refused in words, never half done.
  attempt(make, control) {
    try {
      this.set(make());
      if (control) control.removeAttribute("aria-invalid");
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.say(error.message);
      if (control) control.setAttribute("aria-invalid", "true");
    }
  }

  // Words that stay until the next change.
  say(text) {
    this.trouble = text;
    this.alarm.textContent = text;
  }

  compute() {
    const old = this.convolution;
    if (!old || NUMBERS.some((name) => old.state[name] !== this.state[name])) {
      this.convolution = new Convolution(this.state);
      this.extremes = null;
    }
    const c = this.convolution;
    this.state.channel = Math.min(this.state.channel, c.channels - 1);
    this.state.output = Math.min(this.state.output, c.outputs - 1);
    this.show();
  }

  build() {
    const number = (name, label, get, make, least, extra = {}) => {
      const input = node("input", { type: "number", min: least, step: 1, "data-control": name, onchange: () => this.attempt(() => make(Number(input.value)), input), ...extra });
      this.controls[name] = { input, get };
      return node("label", {}, label, input);
    };
    const select = (name, label, options, get, make) => {
      const input = node("select", { "data-control": name, onchange: () => this.attempt(() => make(input.value), input) }, ...options.map((option) => node("option", { value: option }, option)));
      this.controls[name] = { input, get };
      return node("label", {}, label, input);
    };
    const check = (name, label, get, make) => {
      const input = node("input", { type: "checkbox", "data-control": name, onchange: () => this.attempt(() => make(input.checked), input) });
      this.controls[name] = { input, get };
      return node("label", {}, label, input);
    };
    const button = (label, press, name) => node("button", { type: "button", "data-control": name, onclick: press }, label);
    this.controls = {};
    const s = () => this.state;
    const g = () => this.convolution.geometry;
    const side = (n) => (value) => { const pair = [g().left, g().right]; pair[n] = value; return { padding: pair }; };
    const panel = node("form", { class: "controls", "aria-label": "Settings", onsubmit: (event) => event.preventDefault() },
      number("length", "length", () => s().x[0].length, (length) => resized(s(), { length }), 1),
      number("kernel_size", "kernel size", () => g().kernelSize, (kernelSize) => resized(s(), { kernelSize }), 1),
      number("stride", "stride", () => s().stride, (stride) => ({ stride }), 1),
      number("dilation", "dilation", () => s().dilation, (dilation) => ({ dilation }), 1),
      select("padding", "padding", [...PADDING_WORDS, "as below"], () => (typeof s().padding === "string" ? s().padding : "as below"), (value) => ({ padding: value === "as below" ? [g().left, g().right] : value })),
      number("left", "left", () => g().left, side(0), 0),
      number("right", "right", () => g().right, side(1), 0),
      select("padding_mode", "padding mode", PADDING_MODES, () => s().padding_mode, (padding_mode) => ({ padding_mode })),
      number("in_channels", "input channels", () => s().x.length, (ins) => resized(s(), { ins, ...this.grouped(ins, this.convolution.channels) }), 1),
      number("out_channels", "output channels", () => this.convolution.channels, (outs) => resized(s(), { outs, ...this.grouped(s().x.length, outs) }), 1),
      number("groups", "groups", () => s().groups, (groups) => resized(s(), { groups }), 1),
      check("has_bias", "bias", () => s().bias !== null, (on) => ({ bias: on ? new Array(this.convolution.channels).fill(0) : null })),
      number("bias", "its value", () => (s().bias === null ? "" : s().bias[s().channel]), (value) => ({ bias: s().bias.map((old, o) => (o === s().channel ? value : old)) }), undefined, { step: "any", min: undefined }),
      check("transposed", "transposed", () => s().transposed, (on) => ({ ...resized(s(), { transposed: on }), padding: typeof s().padding === "string" && s().padding !== "causal" && on ? [0, 0] : s().padding, padding_mode: on ? "zeros" : s().padding_mode, output_padding: 0 })),
      number("output_padding", "output padding", () => s().output_padding, (output_padding) => ({ output_padding }), 0),
      node("div", { class: "bar" }, button("Start again", () => this.attempt(() => copy(this.begin)), "reset"), button("The tutorial's", () => this.attempt(() => copy(TUTORIAL)), "tutorial")));
    this.title = node("h1");
    this.about = node("p", { class: "sub" });
    this.alarm = node("div", { class: "alarm", role: "alert" });
    this.hand = node("div", { class: "hand" });
    this.tabs = {};
    this.panels = {};
    const list = node("div", { role: "tablist", "aria-label": "Views", onkeydown: (event) => this.tabKey(event) });
    for (const name of TABS) {
      this.tabs[name] = node("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}`, "data-control": `tab-${name}`, onclick: () => this.attempt(() => ({ tab: name })) }, LABELS[name]);
      this.panels[name] = node("section", { role: "tabpanel", id: `panel-${name}`, "aria-labelledby": `tab-${name}` });
      list.append(this.tabs[name]);
    }
    const go = (by) => () => this.move(by);
    this.scrub = node("input", { type: "range", min: 0, "aria-label": "which output", "data-control": "scrub", oninput: () => this.attempt(() => ({ output: Number(this.scrub.value) })) });
    this.channel = node("select", { "aria-label": "output channel", "data-control": "channel", onchange: () => this.attempt(() => ({ channel: Number(this.channel.value) })) });
    this.playing = button("Play", () => this.play(), "play");
    this.pin = button("Pin", () => this.attempt(() => ({ pinned: !s().pinned })), "pin");
    this.sentence = node("p", { class: "sentence", "aria-live": "polite" });
    this.holder = node("div", { class: "holder" });
    this.overview = node("div", { class: "holder", onclick: (event) => this.jump(event) });
    this.words = node("ul", { class: "words" });
    this.panels.window.append(
      node("div", { class: "bar" }, button("First", () => this.attempt(() => ({ output: 0 })), "first"), button("Back", go(-1), "back"), this.playing, button("Step", go(1), "step"), button("Last", () => this.attempt(() => ({ output: this.convolution.outputs - 1 })), "last"), this.scrub, this.channel, this.pin),
      this.sentence, this.overview, this.holder,
      node("p", { class: "help" }, "Point at a cell to see what it is tied to; arrow keys move, Enter edits an input or a tap and shows an output's step, Space pins."),
      node("div", { class: "bar" }, button("Save SVG", () => this.save("svg"), "svg"), button("Save PNG", () => this.save("png"), "png"), ...(location.protocol === "about:" || this.host.changed ? [] : [button("Copy link", () => this.copied(this.link()), "link")])),
      node("h2", {}, "In words"), this.words);
    this.holder.addEventListener("pointerover", (event) => this.point(event));
    this.holder.addEventListener("pointerleave", () => this.light(null));
    this.holder.addEventListener("focusin", (event) => this.point(event));
    this.holder.addEventListener("focusout", () => this.light(null));
    this.holder.addEventListener("click", (event) => this.press(event));
    this.holder.addEventListener("dblclick", (event) => this.edit(event.target.closest("[data-key]")));
    this.holder.addEventListener("keydown", (event) => this.key(event));
    this.root.classList.add("twp");
    this.root.replaceChildren(node("style", {}, CSS), this.title, this.about, this.alarm, this.hand, node("div", { class: "body" }, panel, node("main", { class: "main" }, list, ...Object.values(this.panels))));
    this.observer = new ResizeObserver(() => {
      if (this.root.clientWidth === this.shownWidth || this.holder.querySelector("input.cell")) return;
      this.shownWidth = this.root.clientWidth;
      this.redraw();
    });
    this.observer.observe(this.root);
    panel.addEventListener("focusin", () => { if (this.timer) this.play(); });
  }

  // The same numbers once more, at another width or step: what is being typed stays.
  redraw() {
    this.redrawing = true;
    try { this.show(); } finally { this.redrawing = false; }
  }

  // Channels that the groups don't divide are taken without groups.
  grouped(ins, outs) { return ins % this.state.groups || outs % this.state.groups ? { groups: 1, ins, outs } : {}; }

  width() { return Math.max(300, Math.min(940, this.panels[this.state.tab].clientWidth || 780)); }

  show() {
    const { state, convolution: c } = this;
    this.title.textContent = state.title;
    this.about.textContent = state.about || "Every number of a one-dimensional convolution. Change anything.";
    this.alarm.textContent = this.trouble || "";
    for (const [name, { input, get }] of Object.entries(this.controls)) {
      if (input.type === "checkbox") input.checked = get();
      else if (!this.redrawing || input !== document.activeElement) input.value = get(); // not what is being typed
      if (!this.trouble) input.removeAttribute("aria-invalid");
      if (name === "bias") input.disabled = state.bias === null;
      if (name === "output_padding") input.disabled = !state.transposed;
      if (name === "padding_mode") input.disabled = state.transposed;
    }
    for (const name of TABS) {
      const on = name === state.tab;
      this.tabs[name].setAttribute("aria-selected", String(on));
      this.tabs[name].tabIndex = on ? 0 : -1;
      this.panels[name].hidden = !on;
    }
    this[`show_${state.tab}`](c);
  }

  show_window(c) {
    const { state } = this;
    const focused = document.activeElement && this.holder.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    this.scrub.max = c.outputs - 1;
    this.scrub.value = state.output;
    this.channel.replaceChildren(...Array.from({ length: c.channels }, (_, o) => node("option", { value: o }, `output channel ${o}`)));
    this.channel.value = state.channel;
    this.channel.hidden = c.channels === 1;
    this.pin.setAttribute("aria-pressed", String(state.pinned));
    this.pin.textContent = state.pinned ? "Pinned" : "Pin";
    this.sentence.textContent = sentence(c.step(state.channel, state.output));
    this.drawn = drawWindow(c, LAYOUT, this.width(), state);
    this.holder.replaceChildren(this.drawn.svg);
    this.overview.hidden = c.length <= 64;
    if (!this.overview.hidden) {
      const input = c.inputs(state.channel)[0];
      if (!this.extremes || this.extremes.input !== input) this.extremes = this.stretches(input);
      this.overview.replaceChildren(drawOverview(c, LAYOUT, this.width(), input, state.output, this.extremes));
    }
    this.words.replaceChildren(...words(c, state).map((line) => {
      const [question, ...rest] = line.split("? ");
      return rest.length ? node("li", {}, node("strong", {}, `${question}?`), ` ${rest.join("? ")}`) : node("li", {}, line);
    }));
    const cells = [...this.holder.querySelectorAll("[data-key]")];
    const again = cells.find((cell) => cell.dataset.key === focused);
    (again || cells.find((cell) => cell.dataset.key === `y:${state.channel}:${state.output}`) || cells[0]).setAttribute("tabindex", "0");
    if (again) again.focus();
    else if (focused) this.holder.querySelector("[tabindex='0']").focus();
    else if (state.pinned) this.light(`y:${state.channel}:${state.output}`);
  }

  show_channels(c) {
    this.panels.channels.replaceChildren(drawChannels(c, LAYOUT, this.width()), node("ul", { class: "words" },
      node("li", {}, `weight is (${this.state.weight.length}, ${this.state.weight[0].length}, ${c.geometry.kernelSize}): ${this.state.transposed ? "(in_channels, out_channels/groups, kernel_size)" : "(out_channels, in_channels/groups, kernel_size)"}.`),
      node("li", {}, `Each output channel reads ${c.inGroup} of ${this.state.x.length} input channels; a dashed square is a pair that no weight joins.`),
      node("li", {}, `Weights: ${c.channels} * ${c.inGroup} * ${c.geometry.kernelSize} = ${c.channels * c.inGroup * c.geometry.kernelSize}${this.state.bias === null ? "" : `, and ${c.channels} of the bias`}.`)));
  }

  show_stack() {
    const { layers } = this.state;
    const put = (n, name, value) => this.attempt(() => ({ layers: layers.map((layer, m) => (m === n ? { ...layer, [name]: value } : layer)) }));
    const cell = (n, name) => node("td", {}, node("input", { type: "number", min: 1, value: layers[n][name], "aria-label": `${name.replace("_", " ")} of layer ${n + 1}`, "data-control": `${name}-${n}`, onchange: (event) => put(n, name, Number(event.target.value)) }));
    const rows = layers.map((layer, n) => node("tr", {}, node("td", {}, `${layer.name ? `${layer.name}, as loaded` : `layer ${n + 1}`}`), cell(n, "kernel_size"), cell(n, "stride"), cell(n, "dilation"),
      node("td", {}, node("select", { "aria-label": `padding of layer ${n + 1}`, "data-control": `padding-${n}`, onchange: (event) => put(n, "padding", event.target.value.includes(",") ? event.target.value.split(",").map(Number) : event.target.value) }, ...[...PADDING_WORDS, ...(typeof layer.padding === "string" ? [] : [String(layer.padding)])].map((word) => node("option", { value: word, selected: word === String(layer.padding) }, word))))));
    const geometries = stackGeometries(layers);
    const field = receptiveField(geometries);
    const width = field.last - field.first + 1;
    const output = Math.max(0, Math.ceil(-field.first / field.stride));
    const parts = [node("div", { class: "holder" }, node("table", {}, node("tr", {}, ...["", "kernel size", "stride", "dilation", "padding"].map((name) => node("th", { scope: "col" }, name))), ...rows)),
      node("div", { class: "bar" }, node("button", { type: "button", "data-control": "add-layer", onclick: () => this.attempt(() => ({ layers: [...layers, { ...layers[layers.length - 1], name: "" }] })) }, "Add a layer"),
        node("button", { type: "button", "data-control": "remove-layer", disabled: layers.length === 1, onclick: () => this.attempt(() => ({ layers: layers.slice(0, -1) })) }, "Remove the last"))];
    if (width <= 4000) parts.push(node("div", { class: "holder" }, drawCone(geometries, LAYOUT, this.width(), output)));
    parts.push(node("ul", { class: "words" },
      node("li", {}, `Receptive field: one output reads ${field.count} samples of a span of ${width}${field.holes ? `: ${field.holes} holes` : ", without holes"}.`),
      node("li", {}, `Stride of the stack: ${field.stride}. Relative to input i*${field.stride}, output i reads from ${field.first} to ${field.last}.`),
      node("li", {}, field.future ? `It sees ${field.future} ${field.future === 1 ? "sample" : "samples"} of the future, marked in the figure: it is not causal.` : "It never sees the future: it is causal.")));
    this.refocus(this.panels.stack, parts);
  }

  // Replaced content keeps the control that the reader was in.
  refocus(panel, parts) {
    const control = document.activeElement && panel.contains(document.activeElement) ? document.activeElement.dataset.control : null;
    panel.replaceChildren(...parts);
    if (control) { const again = panel.querySelector(`[data-control="${CSS_ESCAPE(control)}"]`); if (again) again.focus(); }
  }

  show_response(c) {
    const { state } = this;
    const inputs = c.inputs(state.channel);
    const row = Math.min(this.row || 0, inputs.length - 1);
    const taps = c.taps(state.channel, row);
    const parts = [];
    const picks = [];
    if (c.channels > 1) picks.push(node("select", { "aria-label": "output channel", "data-control": "response-out", onchange: (event) => this.attempt(() => ({ channel: Number(event.target.value) })) }, ...Array.from({ length: c.channels }, (_, o) => node("option", { value: o, selected: o === state.channel }, `to output channel ${o}`))));
    if (inputs.length > 1) picks.push(node("select", { "aria-label": "input channel", "data-control": "response-in", onchange: (event) => { this.row = Number(event.target.value); this.show(); } }, ...inputs.map((input, r) => node("option", { value: r, selected: r === row }, `from input channel ${input}`))));
    if (picks.length) parts.push(node("div", { class: "bar" }, ...picks));
    if (c.geometry.transposed) {
      this.panels.response.replaceChildren(node("p", {}, "A transposed convolution makes several outputs of each input: it has no one response. Its taps are the impulse response, laid down a stride apart."));
      return;
    }
    parts.push(node("div", { class: "holder" }, drawResponse(taps, c.geometry, LAYOUT, this.width())));
    parts.push(node("ul", { class: "words" }, node("li", {}, "Magnitude: how much of a tone of that frequency is left, at stride 1."), node("li", {}, `Delay: how many samples later it comes out, the left padding of ${c.geometry.left} counted in. ${c.geometry.left >= c.geometry.reach - 1 ? "Below 0 a tone's envelope comes out early; the layer reads no future sample all the same." : "Below 0 it comes out ahead of its input."}`)));
    this.refocus(this.panels.response, parts);
  }

  show_code(c) {
    const { state } = this;
    const parts = [];
    if (state.x[0].length * state.x.length > 2000) parts.push(node("p", {}, "The signal is long: its numbers are in the code all the same."));
    for (const [name, make] of [["PyTorch", torchCode], ["Tapwise", tapwiseCode], ["NumPy", numpyCode], ["Command", commandCode]]) {
      const text = make(state, c.geometry);
      parts.push(node("h2", {}, name), node("div", { class: "bar" }, node("button", { type: "button", "data-control": `copy-${name}`, onclick: () => this.copied(text) }, `Copy ${name}`)), node("pre", { "data-code": name, tabindex: "0" }, text.length > 40000 ? `${text.slice(0, 2000)}\n... ${text.length} characters; the button copies all of them` : text));
    }
    this.refocus(this.panels.code, parts);
  }

  show_plan() {
    this.panels.plan.replaceChildren(...(this.state.plan
      ? [node("p", {}, "What Tapwise ran for the layer that this page was made from, why, and what it rejected:"), node("pre", { tabindex: "0" }, this.state.plan)]
      : [node("p", {}, "A page made from a layer of yours, by tapwise.explain(layer, x).save(\"page.html\"), says here which of Tapwise's kernels runs it, why, and what the others would have taken.")]));
  }

  // The least and the most of each stretch of a channel.
  stretches(channel) {
    const row = this.state.x[channel];
    const many = Math.min(240, row.length);
    const [least, most] = [[], []];
    for (let n = 0; n < many; n += 1) {
      let [low, high] = [Infinity, -Infinity];
      for (let i = Math.floor(n * row.length / many); i < Math.floor((n + 1) * row.length / many); i += 1) { const v = row[i]; if (v < low) low = v; if (v > high) high = v; }
      least.push(Number.isFinite(low) ? low : 0);
      most.push(Number.isFinite(high) ? high : 0);
    }
    return { input: channel, least, most };
  }

  jump(event) {
    const box = this.overview.getBoundingClientRect();
    const share = (event.clientX - box.left - LAYOUT.margin) / (this.width() - 2 * LAYOUT.margin);
    this.attempt(() => ({ output: Math.max(0, Math.min(this.convolution.outputs - 1, Math.round(share * (this.convolution.outputs - 1)))) }));
  }

  move(by) {
    const next = this.state.output + by;
    if (next >= 0 && next < this.convolution.outputs) this.attempt(() => ({ output: next }));
    return next < this.convolution.outputs - 1;
  }

  play() {
    if (this.timer) { clearInterval(this.timer); this.timer = null; this.playing.textContent = "Play"; return; }
    if (this.state.output === this.convolution.outputs - 1) this.attempt(() => ({ output: 0 }));
    this.playing.textContent = "Pause";
    this.timer = setInterval(() => { if (!this.root.isConnected || !this.move(1)) this.play(); }, 800);
  }

  point(event) {
    const cell = event.target.closest ? event.target.closest("[data-key]") : null;
    if (cell) this.light(cell.dataset.key);
  }

  // Light a cell and all that it is tied to; with nothing to light, what is pinned.
  light(key) {
    const wanted = key || (this.state.pinned ? `y:${this.state.channel}:${this.state.output}` : null);
    const { svg, axis, bottom, outputsY } = this.drawn;
    const own = wanted === `y:${this.state.channel}:${this.state.output}`;
    for (const old of svg.querySelectorAll(".tie")) old.remove();
    const found = wanted ? ties(this.convolution, wanted, axis) : null;
    this.lit = found ? [...found.keys] : [];
    for (const cell of svg.querySelectorAll("[data-key]")) {
      const mine = cell.dataset.key === `y:${this.state.channel}:${this.state.output}`;
      const [kind, a, b] = cell.dataset.key.split(":");
      const lit = found && ((wanted.startsWith("y") && kind === "w" && (own || Number(wanted.split(":")[1]) === this.state.channel)) || found.keys.has(cell.dataset.key) || (kind === "x" && wanted.startsWith("y") && found.keys.has(`x:${a}:${b}:${cell.dataset.key.split(":")[3]}`)));
      cell.classList.toggle("lit", found ? Boolean(lit) : mine);
      cell.classList.toggle("dim", Boolean(found) && !lit);
    }
    if (!found) return;
    for (const [p, i] of found.lines) {
      const line = element("line", { x1: axis.middle(axis.inputX(p)), y1: bottom, x2: axis.middle(axis.outputX(i)), y2: outputsY, class: "link strong tie" });
      svg.append(line);
    }
  }

  press(event) {
    const cell = event.target.closest("[data-key]");
    if (cell && cell.dataset.key.startsWith("y:")) this.choose(cell.dataset.key, this.state.pinned);
  }

  choose(key, pinned) {
    const [, channel, output] = key.split(":").map(Number);
    this.attempt(() => ({ channel, output, pinned }));
  }

  key(event) {
    const cell = event.target.closest("[data-key]");
    if (!cell || event.target.tagName === "INPUT") return;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (arrows[event.key]) {
      event.preventDefault();
      this.walk(cell, ...arrows[event.key]);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      const { key } = cell.dataset;
      if (event.key === " ") this.choose(key.startsWith("y:") ? key : `y:${this.state.channel}:${this.state.output}`, !this.state.pinned);
      else if (key.startsWith("y:")) this.choose(key, this.state.pinned);
      else this.edit(cell);
    }
  }

  // The cell next in a direction, by where cells stand.
  walk(cell, dx, dy) {
    const place = (one) => { const r = one.querySelector("rect"); return [Number(r.getAttribute("x")), Number(r.getAttribute("y"))]; };
    const [x, y] = place(cell);
    let [best, least] = [null, Infinity];
    for (const other of this.holder.querySelectorAll("[data-key]")) {
      const [ox, oy] = place(other);
      const ahead = dx ? (ox - x) * dx : (oy - y) * dy;
      if (ahead <= 1 || (dx && Math.abs(oy - y) > 1)) continue;
      const distance = dx ? ahead : ahead * 10 + Math.abs(ox - x);
      if (distance < least) [best, least] = [other, distance];
    }
    if (!best && dx && cell.dataset.key.startsWith("y:")) {
      const [, channel, output] = cell.dataset.key.split(":").map(Number);
      if (output + dx >= 0 && output + dx < this.convolution.outputs) { this.choose(`y:${channel}:${output + dx}`, this.state.pinned); best = this.holder.querySelector(`[data-key="y:${channel}:${output + dx}"]`); }
    }
    if (!best) return;
    for (const other of this.holder.querySelectorAll("[tabindex='0']")) other.setAttribute("tabindex", "-1");
    best.setAttribute("tabindex", "0");
    best.focus();
  }

  // A field over a cell: Enter or leaving it takes the number, Escape doesn't.
  edit(cell) {
    if (!cell || cell.dataset.key.startsWith("y:")) return;
    if (this.timer) this.play();
    const { key } = cell.dataset;
    const [kind, a, b, k] = key.split(":");
    const old = kind === "x" ? this.state.x[a][b] : this.state.weight[a][b][k];
    const rect = cell.querySelector("rect");
    const input = node("input", { class: "cell", type: "text", inputmode: "decimal", value: Number.isFinite(old) ? old : encoded(old), "aria-label": cell.getAttribute("aria-label") });
    input.style.left = `${Number(rect.getAttribute("x")) - 8}px`;
    input.style.top = `${rect.getAttribute("y")}px`;
    let done = false;
    const finish = (take) => {
      if (done) return;
      done = true;
      const text = input.value.trim().toLowerCase();
      input.remove();
      const value = ["nan", "inf", "-inf"].includes(text) ? { nan: NaN, inf: Infinity, "-inf": -Infinity }[text] : Number(text);
      const back = () => { const again = this.holder.querySelector(`[data-key="${key}"]`); if (again) { again.setAttribute("tabindex", "0"); again.focus(); } };
      if (take) {
        this.attempt(() => {
          if (text === "" || (Number.isNaN(value) && text !== "nan")) throw new Refusal(`${JSON.stringify(input.value)} is no number`);
          const name = kind === "x" ? "x" : "weight";
          const list = copy(this.state[name]);
          if (kind === "x") list[a][b] = value; else list[a][b][k] = value;
          return { [name]: list };
        });
      }
      back();
    };
    input.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Enter") finish(true);
      if (event.key === "Escape") finish(false);
    });
    input.addEventListener("blur", () => finish(true));
    this.holder.append(input);
    input.focus();
    input.select();
  }

  tabKey(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const next = TABS[(TABS.indexOf(this.state.tab) + by + TABS.length) % TABS.length];
    this.attempt(() => ({ tab: next }));
    this.tabs[next].focus();
  }

  link() { return location.href.split("#")[0] + toHash(this.state); }

  copied(text) {
    this.hand.replaceChildren();
    const done = (how) => { this.say(how); setTimeout(() => { if (this.trouble === how) this.say(""); }, 1800); };
    if (navigator.clipboard && window.isSecureContext) { navigator.clipboard.writeText(text).then(() => done("Copied."), () => this.byHand(text)); } else this.byHand(text);
  }

  // Where the clipboard is closed to a page: a field with the text in it, selected.
  byHand(text) {
    const area = node("textarea", { rows: 4, "aria-label": "text to copy", readonly: true });
    area.value = text;
    this.hand.replaceChildren("Copy this: ", area);
    area.focus();
    area.select();
  }

  save(kind) {
    const svg = this.drawn.svg.cloneNode(true);
    const style = element("style");
    style.textContent = FIGURE_CSS;
    svg.prepend(style);
    const text = new XMLSerializer().serializeToString(svg);
    const give = (blob, name) => {
      const anchor = node("a", { download: name });
      anchor.href = URL.createObjectURL(blob);
      anchor.click();
      setTimeout(() => URL.revokeObjectURL(anchor.href), 5000);
    };
    if (kind === "svg") { give(new Blob([text], { type: "image/svg+xml" }), "convolution.svg"); return; }
    const image = new Image();
    image.onload = () => {
      const canvas = node("canvas", { width: svg.getAttribute("width") * 2, height: svg.getAttribute("height") * 2 });
      const context = canvas.getContext("2d");
      context.scale(2, 2);
      context.drawImage(image, 0, 0);
      canvas.toBlob((blob) => give(blob, "convolution.png"));
    };
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  }

  // What anything outside can drive and check.
  api() {
    return {
      state: () => copy(this.state),
      set: (partial) => this.set(partial),
      output: () => this.convolution.output(),
      lit: () => [...(this.lit || [])],
    };
  }
}

const CSS_ESCAPE = (text) => text.replace(/["\\]/g, "\\$&");

// Whole-page host: the state lies in the document, or in the address after a #.
export function open(root) {
  const data = document.getElementById("tapwise-state");
  const page = new Page(root, data ? JSON.parse(data.textContent) : {}, {});
  const follow = () => {
    if (!location.hash) return;
    try { const found = fromHash(location.hash); if (found) page.set(found); } catch (error) { page.say(`The link can't be read: ${error.message}`); }
  };
  window.addEventListener("hashchange", follow);
  follow();
  window.tapwise = page.api();
}

export default {
  render({ model, el }) {
    const root = document.createElement("div");
    el.append(root);
    const page = new Page(root, model.get("state"), { changed: (one) => { model.set("state", { ...one.state, x: encoded(one.state.x), weight: encoded(one.state.weight), bias: encoded(one.state.bias) }); model.save_changes(); } });
    model.on("change:state", () => { const wanted = model.get("state"); if (JSON.stringify(wanted) !== JSON.stringify(page.state)) page.set(wanted); });
    return () => { if (page.timer) page.play(); page.observer.disconnect(); };
  },
};
