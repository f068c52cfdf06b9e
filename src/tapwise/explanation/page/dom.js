// Elements of the page.

export function node(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== undefined && value !== false) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

const escaped = (text) => text.replace(/["\\]/g, "\\$&");

// Replaced content keeps the control that the reader was in.
export function refocus(panel, parts) {
  const control =
    document.activeElement && panel.contains(document.activeElement) ? document.activeElement.dataset.control : null;
  panel.replaceChildren(...parts);
  if (control) {
    const again = panel.querySelector(`[data-control="${escaped(control)}"]`);
    if (again) again.focus();
  }
}

// Calls `react` where the pointer comes to another place: what is drawn anew under a pointer at rest doesn't count.
export function onPoint(holder, react) {
  let last = "";
  holder.addEventListener("pointerover", (event) => {
    const at = `${event.clientX},${event.clientY}`;
    if (at !== last) react(event);
    last = at;
  });
}
