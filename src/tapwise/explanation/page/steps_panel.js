// The panel of steps: one motion of pointer, slider and Play; what a cell is tied to; the answers in words.
import { element } from "./canvas.js";
import { button } from "./controls.js";
import { feeds } from "./convolution.js";
import { node, onPoint } from "./dom.js";
import { drawOverview, envelope } from "./figure_overview.js";
import { drawSpread } from "./figure_spread.js";
import { drawWindow } from "./figure_window.js";
import { showFormula } from "./formula.js";
import { leastOf } from "./numbers.js";
import { copyText, link, saveFigure } from "./share.js";
import { TUTORIAL } from "./state.js";
import { ties } from "./ties.js";
import { phrase, sentence, words } from "./words.js";

const keyOf = ({ channel, output }) => `y:${channel}:${output}`;
// A signal that is longer is shown as a whole above its steps.
const LONG = 64;

export function buildSteps(page) {
  const go = (by) => () => move(page, by);
  const choice = (name, label, choose) =>
    node("select", {
      "aria-label": label,
      "data-control": name,
      onchange: (event) => choose(Number(event.target.value)),
    });
  page.scrub = node("input", {
    type: "range",
    min: 0,
    "aria-label": "which output",
    "data-control": "scrub",
    oninput: () => page.attempt(() => ({ output: Number(page.scrub.value) })),
  });
  page.channel = choice("channel", "output channel", (channel) => page.attempt(() => ({ channel })));
  page.rowChoice = choice("row", "input channel", (row) => {
    page.row = row;
    page.show();
  });
  page.playing = button("Play", () => play(page), "play");
  page.pin = button("Pin", () => page.attempt(() => ({ pinned: !page.state.pinned })), "pin");
  page.sentence = node("p", { class: "sentence", "aria-live": "polite" });
  page.holder = node("div", { class: "holder" });
  page.overview = node("div", { class: "holder overview", onclick: (event) => jump(page, event) });
  page.zoom = node(
    "div",
    { class: "bar zoom" },
    button("Zoom in", () => zoom(page, 1 / 4), "zoom-in"),
    button("Zoom out", () => zoom(page, 4), "zoom-out"),
    button("All", () => zoom(page, Infinity), "zoom-all"),
    (page.zoomWords = node("span", { class: "help" })),
  );
  page.caption = node("p", { class: "caption" });
  page.formula = node("p", { class: "formula", "aria-label": "How long the output is" });
  page.words = node("ul", { class: "words" });
  // A link holds a convolution; a frame, a widget and a network have no address of their own for one.
  const links = location.protocol === "about:" || page.host.changed || page.host.within;
  page.panels.window.append(
    node(
      "div",
      { class: "bar" },
      button("First", () => page.attempt(() => ({ output: 0 })), "first"),
      button("Back", go(-1), "back"),
      page.playing,
      button("Step", go(1), "step"),
      button("Last", () => page.attempt(() => ({ output: page.convolution.outputs - 1 })), "last"),
      page.scrub,
      page.rowChoice,
      page.channel,
      page.pin,
    ),
    page.sentence,
    page.zoom,
    page.overview,
    page.holder,
    page.caption,
    page.formula,
    node("p", { class: "help" }, phrase("help")),
    node(
      "div",
      { class: "bar" },
      button("Save SVG", () => saveFigure(page, "svg"), "svg"),
      button("Save PNG", () => saveFigure(page, "png"), "png"),
      ...(links ? [] : [button("Copy link", () => copyText(page, link(page)), "link")]),
      button("Reset", () => page.reset(), "reset"),
      button("Load the example", () => page.restart(TUTORIAL), "tutorial"),
    ),
    node("h2", {}, "In words"),
    page.words,
    node(
      "details",
      {},
      node("summary", { "data-control": "glossary" }, phrase("glossary")),
      node(
        "ul",
        { class: "meanings" },
        ...phrase("meanings")
          .split("|")
          .map((line) => node("li", {}, line)),
      ),
    ),
  );
  onPoint(page.holder, (event) => point(page, event));
  page.holder.addEventListener("pointerleave", () => leave(page));
  page.holder.addEventListener("focusin", (event) => point(page, event));
  page.holder.addEventListener("focusout", (event) => {
    if (!page.showing && !page.holder.contains(event.relatedTarget)) leave(page);
  });
  page.holder.addEventListener("click", (event) => press(page, event));
}

function fill(select, count, name, chosen, hidden) {
  select.replaceChildren(...Array.from({ length: count }, (_, n) => node("option", { value: n }, name(n))));
  select.value = chosen;
  select.hidden = hidden;
}

export function showSteps(page, c) {
  const { state } = page;
  const focused = page.holder.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  const inputs = c.inputs(state.channel);
  page.row = Math.min(page.row || 0, inputs.length - 1);
  page.scrub.max = c.outputs - 1;
  page.scrub.value = state.output;
  fill(page.channel, c.channels, (o) => `output channel ${o}`, state.channel, c.channels === 1);
  const alone = inputs.length === 1 || !c.geometry.transposed;
  fill(page.rowChoice, alone ? 1 : inputs.length, (r) => `input channel ${inputs[r]}`, alone ? 0 : page.row, alone);
  page.pin.setAttribute("aria-pressed", String(state.pinned));
  page.pin.textContent = state.pinned ? "Pinned" : "Pin";
  draw(page, { channel: state.channel, output: state.output });
  showOverview(page);
  showFormula(page, c);
  page.words.hidden = page.wordsAreAsked;
  page.words.replaceChildren(
    ...words(c, state).map((line) => {
      const [question, ...rest] = line.split("? ");
      return rest.length
        ? node("li", {}, node("strong", {}, `${question}?`), ` ${rest.join("? ")}`)
        : node("li", {}, line);
    }),
  );
  const cells = [...page.holder.querySelectorAll("[data-key]")];
  const again = cells.find((cell) => cell.dataset.key === focused);
  (again || cells.find((cell) => cell.dataset.key === keyOf(state)) || cells[0]).setAttribute("tabindex", "0");
  page.showing = true;
  if (again) again.focus();
  else if (focused) page.holder.querySelector("[tabindex='0']").focus();
  page.showing = false;
  showStep(page);
}

// The cells anew, with the columns that were shown before where the step lies within them.
function draw(page, chosen, options = {}) {
  const { convolution: c, drawn } = page;
  const same = drawn && drawn.convolution.length === c.length && drawn.transposed === c.geometry.transposed;
  const first = same ? drawn.axis.first : null;
  const figure = c.geometry.transposed ? drawSpread : drawWindow;
  const hides = (channel, output) => page.hides(channel, output);
  page.drawn = figure(c, LAYOUT, page.width(), chosen, { first, row: page.row, hides, ...options });
  page.drawn.convolution = c;
  page.drawn.transposed = c.geometry.transposed;
  page.drawn.group = Math.floor(chosen.channel / c.outGroup);
  page.holder.replaceChildren(page.drawn.svg);
}

// What belongs to the step: the taps, the products, the sum, and the words about them.
function showStep(page, key = null) {
  const { convolution: c, step } = page;
  if (Math.floor(step.channel / c.outGroup) !== page.drawn.group)
    draw(page, step, { keep: true, channels: page.drawn.channels });
  const active = page.drawn.svg.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  const hidden = page.hides(step.channel, step.output);
  const caption = page.drawn.show(step, hidden);
  page.caption.textContent = usesOf(page, key) || caption;
  const line = sentence(c.step(step.channel, step.output));
  page.sentence.textContent = hidden ? line.replace(/= \S+$/, `= ${phrase("asked")}`) : line;
  page.scrub.value = step.output;
  page.channel.value = step.channel;
  const again = active && !page.drawn.svg.contains(document.activeElement) && cellOf(page, active);
  if (again) {
    again.setAttribute("tabindex", "0");
    page.showing = true;
    again.focus();
    page.showing = false;
  }
  light(page, key);
}

// What a pointed input or tap is used for; empty for an output.
function usesOf(page, key) {
  if (!key || key.startsWith("y")) return "";
  const [kind, a, b, k] = key.split(":").map((part, n) => (n ? Number(part) : part));
  if (kind === "w") return phrase("uses_of_tap", { n: k });
  const { convolution: c } = page;
  const fed = feeds(c.geometry, b, c.length);
  const shown = fed.length > 8 ? [...fed.slice(0, 6), "…", fed.at(-1)] : fed;
  const outputs = fed.length === 1 ? `output ${fed[0]}` : fed.length ? `outputs ${shown.join(", ")}` : "no output";
  return phrase(c.state.x.length > 1 || c.channels > 1 ? "uses_of_input_of" : "uses_of_input", {
    n: b,
    channel: a,
    outputs,
  });
}

const cellOf = (page, key) => [...page.holder.querySelectorAll("[data-key]")].find((cell) => cell.dataset.key === key);

// The whole of a long signal, and its output on the same samples.
function showOverview(page) {
  const { convolution: c, state } = page;
  const hidden = c.length <= LONG;
  page.overview.hidden = hidden;
  page.zoom.hidden = hidden;
  if (hidden) return;
  const view = viewOf(page);
  const width = page.width();
  const count = Math.floor(width / 3);
  const input = c.inputs(state.channel)[page.row || 0];
  const keep = (name, make) => {
    const at = `${name}:${view}:${count}`;
    if (!page.envelopes[at]) page.envelopes[at] = make();
    return page.envelopes[at];
  };
  const outputs = (page.envelopes[`output ${state.channel}`] ??= { values: c.channel(state.channel) }).values;
  const spacing = c.geometry.transposed ? 1 / c.geometry.stride : c.geometry.stride;
  const several = (n, count_, name) => (count_ > 1 ? `${name} ch. ${n}` : name);
  const rows = [
    {
      name: several(input, state.x.length, "input"),
      kind: "input",
      ...keep(`x${input}`, () => envelope(state.x[input], 1, view, count)),
    },
  ];
  if (outputs)
    rows.push({
      name: several(state.channel, c.channels, "output"),
      kind: "output",
      ...keep(`y${state.channel}`, () => envelope(outputs, spacing, view, count)),
    });
  page.overviewDrawn = drawOverview(c, LAYOUT, width, { rows, view, step: page.step });
  page.overview.replaceChildren(page.overviewDrawn.svg);
  const shown = Math.round(view[1] - view[0]).toLocaleString("en");
  page.zoomWords.textContent = phrase(outputs ? "overview" : "overview_input", {
    shown,
    length: c.length.toLocaleString("en"),
  });
}

// The samples that the overview shows: those that were asked for, moved to where the window is.
function viewOf(page) {
  const { convolution: c, state } = page;
  const span = Math.min(c.length, Math.max(LONG, page.span || c.length));
  const g = c.geometry;
  const at = g.transposed ? state.output / g.stride : state.output * g.stride;
  let from = page.viewFrom ?? 0;
  if (at < from || at >= from + span) from = at - span / 2;
  page.viewFrom = Math.round(Math.max(0, Math.min(c.length - span, from)));
  return [page.viewFrom, page.viewFrom + span];
}

export function zoom(page, factor) {
  const { convolution: c, state } = page;
  const g = c.geometry;
  page.span = Math.round(Math.min(c.length, Math.max(LONG, (page.span || c.length) * factor)));
  page.viewFrom = (g.transposed ? state.output / g.stride : state.output * g.stride) - page.span / 2;
  page.show();
}

export function jump(page, event) {
  const { convolution: c } = page;
  const g = c.geometry;
  const box = page.overviewDrawn.svg.getBoundingClientRect();
  const sample = page.overviewDrawn.sample(((event.clientX - box.left) * page.width()) / box.width);
  const output = Math.round(g.transposed ? sample * g.stride : sample / g.stride);
  page.attempt(() => ({ output: Math.max(0, Math.min(c.outputs - 1, output)) }));
}

export function move(page, by) {
  const next = page.state.output + by;
  if (next >= 0 && next < page.convolution.outputs) page.attempt(() => ({ output: next }));
  return next < page.convolution.outputs - 1;
}

export function play(page) {
  if (page.timer) {
    clearInterval(page.timer);
    page.timer = null;
    page.playing.textContent = "Play";
    return;
  }
  if (page.state.output === page.convolution.outputs - 1) page.attempt(() => ({ output: 0 }));
  page.playing.textContent = "Pause";
  page.timer = setInterval(() => {
    if (!page.root.isConnected || !move(page, 1)) play(page);
  }, 800);
}

// The kernel moves with the pointer and with focus; an input or a tap shows each of its uses.
export function point(page, event) {
  const cell = event.target.closest ? event.target.closest("[data-key]") : null;
  if (!cell) page.pointed = null; // the step stays until the pointer leaves the figure
  if (!cell || page.showing || page.pointed === cell.dataset.key) return;
  const { key } = cell.dataset;
  page.pointed = key;
  const [kind, channel, output] = key.split(":");
  page.preview = kind === "y" ? { channel: Number(channel), output: Number(output) } : null;
  showStep(page, key);
}

// Back to the step that was chosen.
export function leave(page) {
  page.pointed = null;
  page.preview = null;
  showStep(page);
}

// Light a cell and all that it is tied to; with nothing to light, the step if it is pinned.
function light(page, key) {
  const { svg, axis, bottoms, tops } = page.drawn;
  const own = keyOf(page.step);
  const wanted = key || (page.state.pinned ? own : null);
  const ofStep = !wanted || wanted.startsWith("y");
  for (const old of svg.querySelectorAll(".tie")) old.remove();
  svg.querySelector(".step").classList.toggle("dim", !ofStep && wanted.startsWith("x"));
  const found = wanted ? ties(page.convolution, wanted, axis) : null;
  const used = page.convolution.step(page.step.channel, page.step.output).taps;
  page.lit = found ? [...found.keys] : [];
  for (const cell of svg.querySelectorAll("[data-key]")) {
    const at = cell.dataset.key;
    const isTap = at.startsWith("w");
    const lit =
      found &&
      (found.keys.has(at) ||
        (isTap && ofStep && used.includes(Number(at.split(":")[3]))) ||
        (isTap && at.startsWith(wanted)));
    cell.classList.toggle("lit", found ? Boolean(lit) : at === own);
    cell.classList.toggle("dim", Boolean(found) && !lit);
    if (at.startsWith("y")) cell.setAttribute("aria-pressed", String(at === own));
  }
  if (ofStep) return;
  const reading = new Set([...found.keys].filter((one) => one.startsWith("y")).map((one) => Number(one.split(":")[1])));
  const row = leastOf([...reading].filter((channel) => channel in tops));
  const inputs = page.convolution.inputs([...reading][0] || 0);
  const place = wanted.startsWith("x") ? inputs.indexOf(Number(wanted.split(":")[1])) : Number(wanted.split(":")[4]);
  const from = bottoms[Math.min(Math.max(place, 0), bottoms.length - 1)];
  if (!(row in tops)) return;
  for (const [p, i] of found.lines) {
    const places = { x1: axis.middle(axis.inputX(p)), x2: axis.middle(axis.outputX(i)) };
    svg.append(element("line", { ...places, y1: from, y2: tops[row], class: "link strong tie" }));
  }
}

export function press(page, event) {
  const cell = event.target.closest("[data-key]");
  if (cell && cell.dataset.key.startsWith("y:")) choose(page, cell.dataset.key, page.state.pinned);
}

export function choose(page, key, pinned) {
  const [, channel, output] = key.split(":").map(Number);
  page.attempt(() => ({ channel, output, pinned }));
}
