// Keys: arrows walk from cell to cell, Enter edits, Space pins; arrows in the list of tabs change the view.
import { node } from "./dom.js";
import { Refusal } from "./convolution.js";
import { TABS, copy, encoded } from "./state.js";
import { choose, play } from "./steps_panel.js";

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export function listen(page) {
  page.holder.addEventListener("dblclick", (event) => edit(page, event.target.closest("[data-key]")));
  page.holder.addEventListener("keydown", (event) => pressKey(page, event));
}

export function pressKey(page, event) {
  const cell = event.target.closest("[data-key]");
  if (!cell || event.target.tagName === "INPUT") return;
  if (ARROWS[event.key]) {
    event.preventDefault();
    walk(page, cell, ...ARROWS[event.key]);
  } else if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    const { key } = cell.dataset;
    if (event.key === " ")
      choose(page, key.startsWith("y:") ? key : `y:${page.state.channel}:${page.state.output}`, !page.state.pinned);
    else if (key.startsWith("y:")) choose(page, key, page.state.pinned);
    else edit(page, cell);
  }
}

// The cell next in a direction, by where cells stand.
function nextCell(holder, cell, dx, dy) {
  const place = (one) => {
    const r = one.querySelector("rect");
    return [Number(r.getAttribute("x")), Number(r.getAttribute("y"))];
  };
  const [x, y] = place(cell);
  let [best, least] = [null, Infinity];
  for (const other of holder.querySelectorAll("[data-key]")) {
    const [ox, oy] = place(other);
    const ahead = dx ? (ox - x) * dx : (oy - y) * dy;
    if (ahead <= 1 || (dx && Math.abs(oy - y) > 1)) continue;
    const distance = dx ? ahead : ahead * 10 + Math.abs(ox - x);
    if (distance < least) [best, least] = [other, distance];
  }
  return best;
}

function moveFocus(holder, cell) {
  for (const other of holder.querySelectorAll("[tabindex='0']")) other.setAttribute("tabindex", "-1");
  cell.setAttribute("tabindex", "0");
  cell.focus();
}

// Cells that are pressed by a click, Enter or Space, and walked by arrows.
export function enableCells(holder, press) {
  holder.addEventListener("click", (event) => {
    const cell = event.target.closest("[data-key]");
    if (cell) press(cell.dataset.key);
  });
  holder.addEventListener("keydown", (event) => {
    const cell = event.target.closest("[data-key]");
    if (!cell) return;
    if (ARROWS[event.key]) {
      event.preventDefault();
      const next = nextCell(holder, cell, ...ARROWS[event.key]);
      if (next) moveFocus(holder, next);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      press(cell.dataset.key);
      const again = holder.querySelector("[tabindex='0']");
      if (again) again.focus();
    }
  });
}

// From cell to cell of the steps; at the last output that is shown, on to the next.
export function walk(page, cell, dx, dy) {
  let best = nextCell(page.holder, cell, dx, dy);
  if (!best && dx && cell.dataset.key.startsWith("y:")) {
    const [, channel, output] = cell.dataset.key.split(":").map(Number);
    if (output + dx >= 0 && output + dx < page.convolution.outputs) {
      choose(page, `y:${channel}:${output + dx}`, page.state.pinned);
      best = page.holder.querySelector(`[data-key="y:${channel}:${output + dx}"]`);
    }
  }
  if (best) moveFocus(page.holder, best);
}

// A field over a cell: Enter or leaving it takes the number, Escape doesn't.
export function edit(page, cell) {
  if (!cell || cell.dataset.key.startsWith("y:")) return;
  if (page.timer) play(page);
  const { key } = cell.dataset;
  const [kind, a, b, k] = key.split(":");
  const old = kind === "x" ? page.state.x[a][b] : page.state.weight[a][b][k];
  const rect = cell.querySelector("rect");
  const input = node("input", {
    class: "cell",
    type: "text",
    inputmode: "decimal",
    value: Number.isFinite(old) ? old : encoded(old),
    "aria-label": cell.getAttribute("aria-label"),
  });
  input.style.left = `${Number(rect.getAttribute("x")) - 8}px`;
  input.style.top = `${rect.getAttribute("y")}px`;
  let done = false;
  const finish = (take) => {
    if (done) return;
    done = true;
    const text = input.value.trim().toLowerCase();
    input.remove();
    const value = ["nan", "inf", "-inf"].includes(text)
      ? { nan: NaN, inf: Infinity, "-inf": -Infinity }[text]
      : Number(text);
    const back = () => {
      const again = page.holder.querySelector(`[data-key="${key}"]`);
      if (again) {
        again.setAttribute("tabindex", "0");
        again.focus();
      }
    };
    if (take) {
      page.attempt(() => {
        if (text === "" || (Number.isNaN(value) && text !== "nan"))
          throw new Refusal(`${JSON.stringify(input.value)} is no number`);
        const name = kind === "x" ? "x" : "weight";
        const list = copy(page.state[name]);
        if (kind === "x") list[a][b] = value;
        else list[a][b][k] = value;
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
  page.holder.append(input);
  input.focus();
  input.select();
}

export function pressTabKey(page, event) {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!by) return;
  event.preventDefault();
  const shown = TABS.filter((name) => !page.tabs[name].hidden);
  const next = shown[(shown.indexOf(page.state.tab) + by + shown.length) % shown.length];
  page.attempt(() => ({ tab: next }));
  page.tabs[next].focus();
}
