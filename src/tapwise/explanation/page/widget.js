// The page as a notebook's widget, in the form that anywidget takes.
import { Page } from "./page.js";
import { encoded } from "./state.js";

export default {
  render({ model, el }) {
    const root = document.createElement("div");
    el.append(root);
    const page = new Page(root, model.get("state"), {
      changed: (one) => {
        model.set("state", {
          ...one.state,
          x: encoded(one.state.x),
          weight: encoded(one.state.weight),
          bias: encoded(one.state.bias),
        });
        model.save_changes();
      },
    });
    model.on("change:state", () => {
      const wanted = model.get("state");
      if (JSON.stringify(wanted) !== JSON.stringify(page.state)) page.set(wanted);
    });
    return () => page.leave();
  },
};
