// The panel of steps: the figure of one window, what a cell is tied to, and the answers in words.
import { button } from "./controls.js";
import { node } from "./dom.js";
import { element } from "./canvas.js";
import { drawOverview, drawWindow, ties } from "./figure_steps.js";
import { copyText, link, saveFigure } from "./share.js";
import { sentence, words } from "./words.js";

export function buildSteps(page) {
  const go = (by) => () => move(page, by);
  page.scrub = node("input", {
    type: "range",
    min: 0,
    "aria-label": "which output",
    "data-control": "scrub",
    oninput: () => page.attempt(() => ({ output: Number(page.scrub.value) })),
  });
  page.channel = node("select", {
    "aria-label": "output channel",
    "data-control": "channel",
    onchange: () => page.attempt(() => ({ channel: Number(page.channel.value) })),
  });
  page.playing = button("Play", () => play(page), "play");
  page.pin = button("Pin", () => page.attempt(() => ({ pinned: !page.state.pinned })), "pin");
  page.sentence = node("p", { class: "sentence", "aria-live": "polite" });
  page.holder = node("div", { class: "holder" });
  page.overview = node("div", { class: "holder", onclick: (event) => jump(page, event) });
  page.words = node("ul", { class: "words" });
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
      page.channel,
      page.pin,
    ),
    page.sentence,
    page.overview,
    page.holder,
    node(
      "p",
      { class: "help" },
      "Point at a cell to see what it is tied to; arrow keys move, Enter edits an input or a tap and shows an output's step, Space pins.",
    ),
    node(
      "div",
      { class: "bar" },
      button("Save SVG", () => saveFigure(page, "svg"), "svg"),
      button("Save PNG", () => saveFigure(page, "png"), "png"),
      ...(location.protocol === "about:" || page.host.changed
        ? []
        : [button("Copy link", () => copyText(page, link(page)), "link")]),
    ),
    node("h2", {}, "In words"),
    page.words,
  );
  page.holder.addEventListener("pointerover", (event) => point(page, event));
  page.holder.addEventListener("pointerleave", () => light(page, null));
  page.holder.addEventListener("focusin", (event) => point(page, event));
  page.holder.addEventListener("focusout", () => light(page, null));
  page.holder.addEventListener("click", (event) => press(page, event));
}

export function showSteps(page, c) {
  const { state } = page;
  const focused =
    document.activeElement && page.holder.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  page.scrub.max = c.outputs - 1;
  page.scrub.value = state.output;
  page.channel.replaceChildren(
    ...Array.from({ length: c.channels }, (_, o) => node("option", { value: o }, `output channel ${o}`)),
  );
  page.channel.value = state.channel;
  page.channel.hidden = c.channels === 1;
  page.pin.setAttribute("aria-pressed", String(state.pinned));
  page.pin.textContent = state.pinned ? "Pinned" : "Pin";
  page.sentence.textContent = sentence(c.step(state.channel, state.output));
  page.drawn = drawWindow(c, LAYOUT, page.width(), state);
  page.holder.replaceChildren(page.drawn.svg);
  page.overview.hidden = c.length <= 64;
  if (!page.overview.hidden) {
    const input = c.inputs(state.channel)[0];
    if (!page.extremes || page.extremes.input !== input) page.extremes = stretches(page, input);
    page.overview.replaceChildren(drawOverview(c, LAYOUT, page.width(), input, state.output, page.extremes));
  }
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
  (again || cells.find((cell) => cell.dataset.key === `y:${state.channel}:${state.output}`) || cells[0]).setAttribute(
    "tabindex",
    "0",
  );
  if (again) again.focus();
  else if (focused) page.holder.querySelector("[tabindex='0']").focus();
  else if (state.pinned) light(page, `y:${state.channel}:${state.output}`);
}

// The least and the most of each stretch of a channel.
export function stretches(page, channel) {
  const row = page.state.x[channel];
  const count = Math.min(240, row.length);
  const [least, most] = [[], []];
  for (let n = 0; n < count; n += 1) {
    let [low, high] = [Infinity, -Infinity];
    for (let i = Math.floor((n * row.length) / count); i < Math.floor(((n + 1) * row.length) / count); i += 1) {
      const v = row[i];
      if (v < low) low = v;
      if (v > high) high = v;
    }
    least.push(Number.isFinite(low) ? low : 0);
    most.push(Number.isFinite(high) ? high : 0);
  }
  return { input: channel, least, most };
}

export function jump(page, event) {
  const box = page.overview.getBoundingClientRect();
  const share = (event.clientX - box.left - LAYOUT.margin) / (page.width() - 2 * LAYOUT.margin);
  page.attempt(() => ({
    output: Math.max(0, Math.min(page.convolution.outputs - 1, Math.round(share * (page.convolution.outputs - 1)))),
  }));
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

export function point(page, event) {
  const cell = event.target.closest ? event.target.closest("[data-key]") : null;
  if (cell) light(page, cell.dataset.key);
}

// Light a cell and all that it is tied to; with nothing to light, what is pinned.
export function light(page, key) {
  const wanted = key || (page.state.pinned ? `y:${page.state.channel}:${page.state.output}` : null);
  const { svg, axis, bottom, outputsY } = page.drawn;
  const own = wanted === `y:${page.state.channel}:${page.state.output}`;
  for (const old of svg.querySelectorAll(".tie")) old.remove();
  const found = wanted ? ties(page.convolution, wanted, axis) : null;
  page.lit = found ? [...found.keys] : [];
  for (const cell of svg.querySelectorAll("[data-key]")) {
    const mine = cell.dataset.key === `y:${page.state.channel}:${page.state.output}`;
    const [kind, a, b] = cell.dataset.key.split(":");
    const lit =
      found &&
      ((wanted.startsWith("y") && kind === "w" && (own || Number(wanted.split(":")[1]) === page.state.channel)) ||
        found.keys.has(cell.dataset.key) ||
        (kind === "x" && wanted.startsWith("y") && found.keys.has(`x:${a}:${b}:${cell.dataset.key.split(":")[3]}`)));
    cell.classList.toggle("lit", found ? Boolean(lit) : mine);
    cell.classList.toggle("dim", Boolean(found) && !lit);
  }
  if (!found) return;
  for (const [p, i] of found.lines) {
    const line = element("line", {
      x1: axis.middle(axis.inputX(p)),
      y1: bottom,
      x2: axis.middle(axis.outputX(i)),
      y2: outputsY,
      class: "link strong tie",
    });
    svg.append(line);
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
