// Stacked sections become tabs with arrow keys. The chosen label is kept, so that every block on every page
// opens in the reader's language.
const stored = (key) => {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
};
const store = (key, value) => {
  try {
    localStorage.setItem(key, value);
  } catch {
    // A browser that keeps nothing only forgets the choice.
  }
};

export function tabs(box) {
  const panels = [...box.querySelectorAll(":scope > [data-label]")];
  if (panels.length < 2 || box.querySelector("[role=tablist]")) return;
  const list = document.createElement("div");
  list.className = "tabs";
  list.setAttribute("role", "tablist");
  list.setAttribute("aria-label", box.getAttribute("aria-label") ?? "");
  const buttons = panels.map((panel) => button(panel));
  list.append(...buttons);
  const head = document.createElement("div");
  head.className = "code-head";
  head.append(list);
  box.prepend(head);

  const choose = (at, focus) => {
    buttons.forEach((each, place) => {
      each.setAttribute("aria-selected", String(place === at));
      each.tabIndex = place === at ? 0 : -1;
      panels[place].hidden = place !== at;
    });
    if (focus) buttons[at].focus();
  };
  list.addEventListener("click", (event) => {
    const at = buttons.indexOf(event.target.closest("button"));
    if (at < 0) return;
    choose(at);
    if (box.dataset.tabsKey) store(box.dataset.tabsKey, panels[at].dataset.label);
  });
  list.addEventListener("keydown", (event) => {
    const at = buttons.indexOf(document.activeElement);
    const last = buttons.length - 1;
    const to = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at ? at - 1 : last, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose(to, true);
  });
  const wanted = stored(box.dataset.tabsKey ?? "");
  choose(Math.max(0, panels.findIndex((panel) => panel.dataset.label === wanted)));
}

function button(panel) {
  const made = document.createElement("button");
  made.type = "button";
  made.id = `${panel.id}-tab`;
  made.textContent = panel.dataset.label;
  made.setAttribute("role", "tab");
  made.setAttribute("aria-controls", panel.id);
  panel.setAttribute("role", "tabpanel");
  panel.setAttribute("aria-labelledby", made.id);
  const heading = panel.querySelector(":scope > h4");
  if (heading) heading.hidden = true;
  return made;
}
