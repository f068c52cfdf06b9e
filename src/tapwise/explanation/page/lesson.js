// The tutorial as a lesson: stations, each a state of the page with a question that the page can check. LESSON comes
// from the build, out of lesson.json.
import { button } from "./controls.js";
import { Convolution, windowTaps } from "./convolution.js";
import { node } from "./dom.js";
import { NUMBERS, TUTORIAL, changed } from "./state.js";
import { phrase } from "./words.js";

const stateOf = (n) => ({ ...TUTORIAL, ...LESSON[n].state, title: phrase("lesson_title"), lesson: n });

// The number that a station asks for, computed from the station's own state.
export function answerOf(n) {
  const { asks } = LESSON[n];
  const c = new Convolution(changed(TUTORIAL, LESSON[n].state));
  if ("output" in asks) return c.value(...asks.output);
  if (asks.length) return c.outputs;
  if (asks.reach) return c.geometry.effective;
  return Math.max(...windowTaps(c.geometry, asks.last_input).map(([p]) => p));
}

// Whether the layer that is shown is one as asked for.
function isMade({ geometry, outputs, length }, wanted) {
  return geometry.kernelSize === wanted.kernel_size && (!wanted.same_length || outputs === length);
}

export function buildLesson(page) {
  const go = (by) => () => visit(page, page.state.lesson + by);
  page.lessonText = node("p", {});
  page.lessonQuestion = node("span", {});
  page.lessonAnswer = node("input", {
    type: "text",
    inputmode: "decimal",
    size: 8,
    "data-control": "answer",
  });
  page.lessonReply = node("p", { class: "reply", role: "status" });
  page.lessonBack = button("Previous", go(-1), "lesson-back");
  page.lessonNext = button("Next", go(1), "lesson-next");
  page.station = node(
    "select",
    { "aria-label": "station", "data-control": "station", onchange: () => visit(page, Number(page.station.value)) },
    ...LESSON.map(({ title }, n) =>
      node("option", { value: n }, phrase("station", { n: n + 1, count: LESSON.length, title })),
    ),
  );
  page.stations = node(
    "div",
    { class: "bar stations" },
    page.station,
    page.lessonBack,
    page.lessonNext,
    button("Leave the lesson", () => leaveLesson(page), "lesson-leave"),
  );
  page.lesson = node(
    "section",
    { class: "lesson", "aria-label": "Lesson" },
    page.stations,
    node("div", {}, page.lessonText),
    node(
      "div",
      {},
      node(
        "form",
        { onsubmit: (event) => answer(page, event) },
        node("label", {}, page.lessonQuestion, page.lessonAnswer),
        node("div", { class: "bar" }, node("button", { type: "submit", "data-control": "check" }, "Check")),
      ),
      page.lessonReply,
    ),
  );
  return page.lesson;
}

export function visit(page, n) {
  page.lessonAnswer.value = "";
  page.lastStation = Math.max(0, Math.min(LESSON.length - 1, n));
  page.isAnswered = false;
  page.restart(stateOf(page.lastStation));
  // A button that is gone or disabled can't keep the focus.
  if (document.activeElement === document.body || document.activeElement.disabled) page.station.focus();
}

function leaveLesson(page) {
  page.attempt(() => ({ lesson: null }));
  page.lessonEntry.focus();
}

// What is asked for isn't written in the picture until it is answered.
export function hides(page, channel, output) {
  const { lesson } = page.state;
  if (lesson === null || page.isAnswered || !LESSON[lesson].asks.output) return false;
  return LESSON[lesson].asks.output[0] === channel && LESSON[lesson].asks.output[1] === output;
}

const isAsked = (page, name) =>
  page.state.lesson !== null && !page.isAnswered && Boolean(LESSON[page.state.lesson].asks[name]);
export const hidesLength = (page) => isAsked(page, "length");
export const hidesWords = (page) => isAsked(page, "length") || isAsked(page, "reach");

// Whether the layer is no longer the station's.
function isChanged(page) {
  const station = changed(TUTORIAL, LESSON[page.state.lesson].state);
  return NUMBERS.some((name) => JSON.stringify(station[name]) !== JSON.stringify(page.state[name]));
}

function answer(page, event) {
  event.preventDefault();
  const { asks, hint } = LESSON[page.state.lesson];
  // Who writes "5 + 6 + 7 = 18" gives the last of the numbers.
  const numbers = page.lessonAnswer.value.replaceAll("−", "-").match(/-?\d+(?:[.,]\d+)?/g);
  const reply = (text, right) => {
    page.repliedTo = page.convolution;
    page.lessonReply.textContent = text;
    page.lessonReply.classList.toggle("right", right);
  };
  if (!asks.make && !numbers) return reply(phrase("give_a_number"), false);
  const right = asks.make
    ? isMade(page.convolution, asks.make)
    : Math.abs(Number(numbers.at(-1).replace(",", ".")) - answerOf(page.state.lesson)) < 1e-9;
  const last = page.state.lesson === LESSON.length - 1;
  if (!right) return reply(phrase(!asks.make && isChanged(page) ? "station_changed" : "not_yet", { hint }), false);
  page.isAnswered = true;
  page.repliedTo = page.convolution;
  page.show();
  return reply(phrase(last ? "right_last" : "right"), true);
}

export function showLesson(page) {
  // A reply is to the layer that was shown.
  if (page.repliedTo !== page.convolution) {
    page.lessonReply.textContent = "";
    page.isAnswered = false;
  }
  const n = page.state.lesson;
  page.lesson.hidden = n === null;
  page.root.classList.toggle("lessons", n !== null);
  page.lessonEntry.hidden = n !== null || Boolean(page.host.within);
  const bar = n === null ? page.header : page.stations;
  if (page.presenting.parentNode !== bar) bar.append(page.presenting);
  if (n === null) return;
  const { text, question, asks } = LESSON[n];
  page.station.value = n;
  page.lessonText.textContent = text;
  page.lessonQuestion.textContent = question;
  page.lessonAnswer.hidden = Boolean(asks.make);
  page.lessonBack.disabled = n === 0;
  page.lessonNext.disabled = n === LESSON.length - 1;
}
