// Results, said politely. They go by themselves; errors stay, and so does what the pointer or the focus is on.
const LASTS = 8000;
const ICONS = { ok: "circle-check", warn: "alert", bad: "alert", idle: "info" };
const region = () => document.getElementById("toasts");

// The sprite's address, taken from an icon that the server wrote.
export function icon(name) {
  const base = document.querySelector("svg.icon use")?.getAttribute("href").replace(/#.*/, "") ?? "/static/icons.svg";
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  svg.classList.add("icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `${base}#${name}`);
  svg.append(use);
  return svg;
}

// undo: {label, action: () => void} or {label, url}
export function toast(text, { tone = "idle", undo = null } = {}) {
  const box = document.createElement("div");
  box.className = `toast is-${tone}`;
  box.dataset.toast = "";
  const words = document.createElement("div");
  words.className = "toast-text";
  words.textContent = text;
  if (undo) words.append(" ", undoLink(undo, box));
  const close = document.createElement("button");
  close.type = "button";
  close.className = "btn btn-icon btn-small";
  close.dataset.dismiss = "";
  close.setAttribute("aria-label", "Dismiss");
  close.append(icon("x"));
  box.append(icon(ICONS[tone] ?? "info"), words, close);
  region()?.append(box);
  leave(box);
  return box;
}

function undoLink(undo, box) {
  const link = document.createElement("a");
  link.href = undo.url ?? "#";
  link.textContent = undo.label ?? "Undo";
  link.addEventListener("click", (event) => {
    if (undo.action) {
      event.preventDefault();
      undo.action();
    }
    box.remove();
  });
  return link;
}

function leave(box) {
  if (box.classList.contains("is-bad")) return;
  const timer = setInterval(() => {
    if (box.matches(":hover, :focus-within")) return;
    clearInterval(timer);
    box.remove();
  }, LASTS);
}

document.addEventListener("click", (event) => event.target.closest("[data-dismiss]")?.closest("[data-toast]").remove());
// A response may carry HX-Trigger: {"toast": {"text": …, "tone": …}}.
document.addEventListener("toast", (event) => toast(event.detail.text, event.detail));
document.addEventListener("htmx:responseError", (event) => {
  if (event.detail.elt.matches("[data-refresh]")) return; // nobody asked for it; the banner says what is wrong
  toast(`The console answered ${event.detail.xhr.status}. Nothing was changed; try again in a moment.`, { tone: "bad" });
});
// Said once, and gone when an answer comes again. A request that leaving the page ends is no failure.
let unreachable = null;
let leaving = false;
addEventListener("pagehide", () => (leaving = true));
document.addEventListener("htmx:sendError", (event) => {
  if (leaving || unreachable?.isConnected || event.detail.elt.matches("[data-refresh]")) return;
  unreachable = toast("The console can't be reached: what you see may be old. Try again in a moment.", { tone: "bad" });
});
document.addEventListener("htmx:afterOnLoad", () => unreachable?.remove());
for (const box of document.querySelectorAll("[data-toast]")) leave(box);
