// The tutorial as a lesson: stations, each a state of the page with a question that the page can check. LESSON comes
// from the build, out of lesson.json.
import { button } from "./controls.js";
import { Convolution, windowTaps } from "./convolution.js";
import { node } from "./dom.js";
import { TUTORIAL, changed } from "./state.js";
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
  page.lessonPlace = node("span", { class: "place" });
  page.lessonTitle = node("h2", {});
  page.lessonText = node("p", {});
  page.lessonQuestion = node("label", {});
  page.lessonAnswer = node("input", {
    type: "text",
    inputmode: "decimal",
    size: 8,
    "data-control": "answer",
    "aria-label": "your answer",
  });
  page.lessonReply = node("p", { class: "reply", role: "status" });
  page.lessonBack = button("Previous", go(-1), "lesson-back");
  page.lessonNext = button("Next", go(1), "lesson-next");
  page.lesson = node(
    "section",
    { class: "lesson", "aria-label": "Lesson" },
    node(
      "div",
      { class: "bar" },
      page.lessonTitle,
      page.lessonPlace,
      page.lessonBack,
      page.lessonNext,
      button("Leave the lesson", () => page.attempt(() => ({ lesson: null })), "lesson-leave"),
    ),
    page.lessonText,
    node(
      "form",
      { class: "bar", onsubmit: (event) => answer(page, event) },
      page.lessonQuestion,
      page.lessonAnswer,
      node("button", { type: "submit", "data-control": "check" }, "Check"),
    ),
    page.lessonReply,
  );
  return page.lesson;
}

export function visit(page, n) {
  page.lessonAnswer.value = "";
  page.lessonReply.textContent = "";
  page.restart(stateOf(Math.max(0, Math.min(LESSON.length - 1, n))));
}

function answer(page, event) {
  event.preventDefault();
  const { asks, hint } = LESSON[page.state.lesson];
  const text = page.lessonAnswer.value.trim().replace(",", ".");
  let right;
  if (asks.make) right = isMade(page.convolution, asks.make);
  else if (text === "" || Number.isNaN(Number(text))) {
    page.lessonReply.textContent = phrase("give_a_number");
    return;
  } else right = Math.abs(Number(text) - answerOf(page.state.lesson)) < 1e-9;
  const last = page.state.lesson === LESSON.length - 1;
  page.lessonReply.textContent = right ? phrase(last ? "right_last" : "right") : phrase("not_yet", { hint });
  page.lessonReply.classList.toggle("right", right);
}

export function showLesson(page) {
  const n = page.state.lesson;
  page.lesson.hidden = n === null;
  page.lessonEntry.hidden = n !== null || page.host.within;
  if (n === null) return;
  const { title, text, question, asks } = LESSON[n];
  page.lessonPlace.textContent = phrase("station", { n: n + 1, count: LESSON.length });
  page.lessonTitle.textContent = title;
  page.lessonText.textContent = text;
  page.lessonQuestion.textContent = question;
  page.lessonAnswer.hidden = Boolean(asks.make);
  page.lessonBack.disabled = n === 0;
  page.lessonNext.disabled = n === LESSON.length - 1;
}
