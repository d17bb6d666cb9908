// Menus close as one expects, "/" finds the search box, and what is refused stays unchosen.
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    const inside = menu.contains(event.target);
    if (!inside || event.target.closest(".menu-panel a")) menu.open = false;
  }
  const refused = event.target.closest("[data-refused], .btn[aria-disabled='true']");
  if (refused) event.preventDefault();
});

function step(menu, key) {
  const items = [...menu.querySelectorAll(".menu-panel :is(a, button)")];
  const at = items.indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[key];
  items[(to + items.length) % items.length]?.focus();
}

// What the search box found: arrows go through it, Escape shuts it and leaves what was typed.
document.addEventListener("keydown", (event) => {
  const search = event.target.closest?.("form.search:has(.search-found)");
  if (!search) return;
  if (event.key === "Escape" && !search.classList.contains("is-shut")) {
    event.preventDefault(); // a browser would empty the field
    search.classList.add("is-shut");
    search.querySelector("input").focus();
  } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    const items = [search.querySelector("input"), ...search.querySelectorAll(".search-found a")];
    const at = items.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
    event.preventDefault();
    items[(at + items.length) % items.length].focus();
  }
});
document.addEventListener("input", (event) => event.target.closest?.("form.search")?.classList.remove("is-shut"));
// Nor is it replaced under somebody who goes through it: back at the field, it is asked for anew.
document.addEventListener("htmx:beforeSwap", (event) => {
  const { target } = event.detail;
  if (target.matches(".search-found") && target.contains(document.activeElement)) event.detail.shouldSwap = false;
});

document.addEventListener("keydown", (event) => {
  const menu = event.target.closest?.("details.menu[open]");
  if (event.key === "Escape" && menu) {
    menu.open = false;
    menu.querySelector("summary").focus();
  } else if (menu && ["ArrowDown", "ArrowUp", "Home", "End"].includes(event.key)) {
    event.preventDefault();
    step(menu, event.key);
  } else if (event.key === "/" && !event.ctrlKey && !event.metaKey && !event.altKey && !typing(event.target)) {
    const search = document.querySelector("[data-search]");
    if (!search) return;
    event.preventDefault();
    search.focus();
    search.select();
  }
});

function typing(element) {
  return element.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(element.tagName);
}
