// The one module every page loads. What a page doesn't hold is never fetched.
import "./theme.js";
import "./menu.js";
import "./copy.js";
import "./dialog.js";
import { focusFirstError } from "./forms.js";
import { tabs } from "./tabs.js";
import { localise } from "./time.js";
import "./toast.js";
import "./zone.js";

const PARTS = { "[data-log]": "./log.js", "[data-chart]": "./chart.js", "[data-tryit]": "./tryit.js", "[data-upload]": "./upload.js" };

async function prepare(root) {
  localise(root);
  for (const box of root.querySelectorAll("[data-tabs]")) tabs(box);
  for (const [selector, module] of Object.entries(PARTS)) {
    const found = [...root.querySelectorAll(selector), ...(root.matches?.(selector) ? [root] : [])];
    if (!found.length) continue;
    const { begin } = await import(module);
    for (const element of found) begin(element);
  }
}

prepare(document.body);
focusFirstError(document.body);
if (location.hash) addEventListener("load", () => document.activeElement === document.body && focusFirstError(document.body)); // going to the hash takes the focus
const tab = document.querySelector(".tabs > [aria-current]"); // on a phone, tabs are wider than the page
if (tab) tab.parentElement.scrollLeft = tab.offsetLeft - tab.parentElement.offsetLeft - tab.parentElement.clientWidth / 3;
document.addEventListener("htmx:load", (event) => {
  if (event.detail.elt === document.body) return;
  prepare(event.detail.elt);
  focusFirstError(event.detail.elt);
});

const path = document.body.dataset.liveUrl ?? document.querySelector("[data-live]")?.dataset.live;
if (path) import("./live.js").then(({ start }) => start(path));
