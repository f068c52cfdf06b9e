// The other panels: channels, stack, response, code, and why this kernel.
import { commandCode, numpyCode, tapwiseCode, torchCode } from "./code.js";
import { PADDING_WORDS, receptiveField, stackGeometries } from "./convolution.js";
import { node, refocus } from "./dom.js";
import { drawChannels } from "./figure_channels.js";
import { drawResponse } from "./figure_response.js";
import { drawCone } from "./figure_stack.js";
import { copyText } from "./share.js";

export function showChannels(page, c) {
  page.panels.channels.replaceChildren(
    drawChannels(c, LAYOUT, page.width()),
    node(
      "ul",
      { class: "words" },
      node(
        "li",
        {},
        `weight is (${page.state.weight.length}, ${page.state.weight[0].length}, ${c.geometry.kernelSize}): ${page.state.transposed ? "(in_channels, out_channels/groups, kernel_size)" : "(out_channels, in_channels/groups, kernel_size)"}.`,
      ),
      node(
        "li",
        {},
        `Each output channel reads ${c.inGroup} of ${page.state.x.length} input channels; a dashed square is a pair that no weight joins.`,
      ),
      node(
        "li",
        {},
        `Weights: ${c.channels} * ${c.inGroup} * ${c.geometry.kernelSize} = ${c.channels * c.inGroup * c.geometry.kernelSize}${page.state.bias === null ? "" : `, and ${c.channels} of the bias`}.`,
      ),
    ),
  );
}

export function showStack(page) {
  const { layers } = page.state;
  const put = (n, name, value) =>
    page.attempt(() => ({ layers: layers.map((layer, m) => (m === n ? { ...layer, [name]: value } : layer)) }));
  const cell = (n, name) =>
    node(
      "td",
      {},
      node("input", {
        type: "number",
        min: 1,
        value: layers[n][name],
        "aria-label": `${name.replace("_", " ")} of layer ${n + 1}`,
        "data-control": `${name}-${n}`,
        onchange: (event) => put(n, name, Number(event.target.value)),
      }),
    );
  const rows = layers.map((layer, n) =>
    node(
      "tr",
      {},
      node("td", {}, `${layer.name ? `${layer.name}, as loaded` : `layer ${n + 1}`}`),
      cell(n, "kernel_size"),
      cell(n, "stride"),
      cell(n, "dilation"),
      node(
        "td",
        {},
        node(
          "select",
          {
            "aria-label": `padding of layer ${n + 1}`,
            "data-control": `padding-${n}`,
            onchange: (event) =>
              put(
                n,
                "padding",
                event.target.value.includes(",") ? event.target.value.split(",").map(Number) : event.target.value,
              ),
          },
          ...[...PADDING_WORDS, ...(typeof layer.padding === "string" ? [] : [String(layer.padding)])].map((word) =>
            node("option", { value: word, selected: word === String(layer.padding) }, word),
          ),
        ),
      ),
    ),
  );
  const geometries = stackGeometries(layers);
  const field = receptiveField(geometries);
  const width = field.last - field.first + 1;
  const output = Math.max(0, Math.ceil(-field.first / field.stride));
  const parts = [
    node(
      "div",
      { class: "holder" },
      node(
        "table",
        {},
        node(
          "tr",
          {},
          ...["", "kernel size", "stride", "dilation", "padding"].map((name) => node("th", { scope: "col" }, name)),
        ),
        ...rows,
      ),
    ),
    node(
      "div",
      { class: "bar" },
      node(
        "button",
        {
          type: "button",
          "data-control": "add-layer",
          onclick: () => page.attempt(() => ({ layers: [...layers, { ...layers[layers.length - 1], name: "" }] })),
        },
        "Add a layer",
      ),
      node(
        "button",
        {
          type: "button",
          "data-control": "remove-layer",
          disabled: layers.length === 1,
          onclick: () => page.attempt(() => ({ layers: layers.slice(0, -1) })),
        },
        "Remove the last",
      ),
    ),
  ];
  if (width <= 4000) parts.push(node("div", { class: "holder" }, drawCone(geometries, LAYOUT, page.width(), output)));
  parts.push(
    node(
      "ul",
      { class: "words" },
      node(
        "li",
        {},
        `Receptive field: one output reads ${field.count} samples of a span of ${width}${field.holes ? `: ${field.holes} holes` : ", without holes"}.`,
      ),
      node(
        "li",
        {},
        `Stride of the stack: ${field.stride}. Relative to input i*${field.stride}, output i reads from ${field.first} to ${field.last}.`,
      ),
      node(
        "li",
        {},
        field.future
          ? `It sees ${field.future} ${field.future === 1 ? "sample" : "samples"} of the future, marked in the figure: it is not causal.`
          : "It never sees the future: it is causal.",
      ),
    ),
  );
  refocus(page.panels.stack, parts);
}

export function showResponse(page, c) {
  const { state } = page;
  const inputs = c.inputs(state.channel);
  const row = Math.min(page.row || 0, inputs.length - 1);
  const taps = c.taps(state.channel, row);
  const parts = [];
  const picks = [];
  if (c.channels > 1)
    picks.push(
      node(
        "select",
        {
          "aria-label": "output channel",
          "data-control": "response-out",
          onchange: (event) => page.attempt(() => ({ channel: Number(event.target.value) })),
        },
        ...Array.from({ length: c.channels }, (_, o) =>
          node("option", { value: o, selected: o === state.channel }, `to output channel ${o}`),
        ),
      ),
    );
  if (inputs.length > 1)
    picks.push(
      node(
        "select",
        {
          "aria-label": "input channel",
          "data-control": "response-in",
          onchange: (event) => {
            page.row = Number(event.target.value);
            page.show();
          },
        },
        ...inputs.map((input, r) => node("option", { value: r, selected: r === row }, `from input channel ${input}`)),
      ),
    );
  if (picks.length) parts.push(node("div", { class: "bar" }, ...picks));
  if (c.geometry.transposed) {
    page.panels.response.replaceChildren(
      node(
        "p",
        {},
        "A transposed convolution makes several outputs of each input: it has no one response. Its taps are the impulse response, laid down a stride apart.",
      ),
    );
    return;
  }
  parts.push(node("div", { class: "holder" }, drawResponse(taps, c.geometry, LAYOUT, page.width())));
  parts.push(
    node(
      "ul",
      { class: "words" },
      node("li", {}, "Magnitude: how much of a tone of that frequency is left, at stride 1."),
      node(
        "li",
        {},
        `Delay: how many samples later it comes out, the left padding of ${c.geometry.left} counted in. ${c.geometry.left >= c.geometry.effective - 1 ? "Below 0 a tone's envelope comes out early; the layer reads no future sample all the same." : "Below 0 it comes out ahead of its input."}`,
      ),
    ),
  );
  refocus(page.panels.response, parts);
}

export function showCode(page, c) {
  const { state } = page;
  const parts = [];
  if (state.x[0].length * state.x.length > 2000)
    parts.push(node("p", {}, "The signal is long: its numbers are in the code all the same."));
  for (const [name, make] of [
    ["PyTorch", torchCode],
    ["Tapwise", tapwiseCode],
    ["NumPy", numpyCode],
    ["Command", commandCode],
  ]) {
    const text = make(state, c.geometry);
    parts.push(
      node("h2", {}, name),
      node(
        "div",
        { class: "bar" },
        node(
          "button",
          { type: "button", "data-control": `copy-${name}`, onclick: () => copyText(page, text) },
          `Copy ${name}`,
        ),
      ),
      node(
        "pre",
        { "data-code": name, tabindex: "0" },
        text.length > 40000
          ? `${text.slice(0, 2000)}\n... ${text.length} characters; the button copies all of them`
          : text,
      ),
    );
  }
  refocus(page.panels.code, parts);
}

export function showPlan(page) {
  page.panels.plan.replaceChildren(
    ...(page.state.plan
      ? [
          node("p", {}, "What Tapwise ran for the layer that page page was made from, why, and what it rejected:"),
          node("pre", { tabindex: "0" }, page.state.plan),
        ]
      : [
          node(
            "p",
            {},
            'A page made from a layer of yours, by tapwise.explain(layer, x).save("page.html"), says here which of Tapwise\'s kernels runs it, why, and what the others would have taken.',
          ),
        ]),
  );
}
