// The panel of gradients: the windows in reverse, and how each number of grad_input and grad_weight is summed.
import { node, onPoint, refocus } from "./dom.js";
import { drawGradient } from "./figure_gradient.js";
import { Gradients } from "./gradients.js";
import { enableCells } from "./keyboard.js";
import { phrase } from "./words.js";

export function buildGradient(page) {
  page.gradient = { all: false, at: { kind: "weight", n: 0 }, row: 0 };
  page.gradientBar = node("div", { class: "bar" });
  page.gradientWords = node("p", { class: "sentence", "aria-live": "polite" });
  page.gradientHolder = node("div", { class: "holder" });
  page.gradientRule = node("li", {});
  page.panels.gradient.append(
    node("p", { class: "help" }, phrase("gradient_help")),
    page.gradientBar,
    page.gradientWords,
    page.gradientHolder,
    node(
      "ul",
      { class: "words" },
      page.gradientRule,
      ...["gradient_weight", "gradient_bias"].map((name) => node("li", {}, phrase(name))),
    ),
  );
  const pick = (key) => choose(page, key);
  enableCells(page.gradientHolder, pick);
  const point = (event) => {
    const cell = event.target.closest("[data-key]");
    if (cell) pick(cell.dataset.key);
  };
  onPoint(page.gradientHolder, point);
  page.gradientHolder.addEventListener("focusin", point);
}

function choose(page, key) {
  const [kind, n] = key.split(":");
  const at = { kind: kind === "gx" ? "input" : "weight", n: Number(n) };
  if (at.kind === page.gradient.at.kind && at.n === page.gradient.at.n) return;
  page.gradient.at = at;
  showSum(page, page.convolution);
}

export function showGradient(page, c) {
  const { state, gradient } = page;
  const inputs = c.inputs(state.channel);
  gradient.row = Math.min(gradient.row, inputs.length - 1);
  const most = gradient.at.kind === "input" ? c.length : c.geometry.kernelSize;
  if (gradient.at.n >= most) gradient.at = { kind: "weight", n: 0 };
  const choice = (name, label, options, chosen, change) => {
    const made = options.map((text, n) => node("option", { value: n, selected: n === chosen }, text));
    const onchange = (event) => change(Number(event.target.value));
    return node("select", { "aria-label": label, "data-control": name, onchange }, ...made);
  };
  const one = phrase(c.channels > 1 ? "of_output_of_channel" : "of_output", state);
  const redraw = (make) => (n) => {
    make(n);
    page.show();
  };
  const selects = [
    choice(
      "gradient-of",
      "gradient of",
      [one, phrase("of_all")],
      Number(gradient.all),
      redraw((n) => (gradient.all = n === 1)),
    ),
  ];
  const every = (count, name) => Array.from({ length: count }, (_, n) => name(n));
  if (c.channels > 1)
    selects.push(
      choice(
        "gradient-out",
        "output channel",
        every(c.channels, (o) => `output channel ${o}`),
        state.channel,
        (channel) => page.attempt(() => ({ channel })),
      ),
    );
  if (inputs.length > 1)
    selects.push(
      choice(
        "gradient-in",
        "input channel",
        inputs.map((i) => `input channel ${i}`),
        gradient.row,
        redraw((n) => (gradient.row = n)),
      ),
    );
  page.gradientRule.textContent = phrase(c.geometry.transposed ? "gradient_input_transposed" : "gradient_input");
  refocus(page.gradientBar, [node("span", {}, phrase("gradient_of")), ...selects]);
  showSum(page, c);
}

// The gradients of what is chosen; grad_input is summed once for all that the pointer passes.
export function gradientsOf(page, all) {
  const chosen = all ? null : { channel: page.state.channel, output: page.state.output };
  const old = page.gradientsShown;
  const same = old && old.c === page.convolution && JSON.stringify(old.chosen) === JSON.stringify(chosen);
  if (!same) page.gradientsShown = new Gradients(page.convolution, chosen);
  return page.gradientsShown;
}

function showSum(page, c) {
  const { gradient, state } = page;
  const active = page.gradientHolder.contains(document.activeElement);
  const step = { channel: state.channel, output: state.output };
  const drawn = drawGradient(c, gradientsOf(page, gradient.all), LAYOUT, page.width(), {
    step,
    row: gradient.row,
    at: gradient.at,
  });
  page.gradientHolder.replaceChildren(drawn.svg);
  const key = `${gradient.at.kind === "input" ? "gx" : "gw"}:${gradient.at.n}`;
  const cells = [...page.gradientHolder.querySelectorAll("[data-key]")];
  const cell = cells.find((found) => found.dataset.key === key) || cells[0];
  if (cell) {
    cell.setAttribute("tabindex", "0");
    if (active) cell.focus();
  }
  const of = gradient.all ? phrase("all_outputs") : phrase("one_output");
  page.gradientWords.textContent = phrase(gradient.at.kind === "input" ? "sum_of_input" : "sum_of_tap", {
    n: gradient.at.n,
    total: drawn.total,
    of,
  });
}
