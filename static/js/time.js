// Moments in the viewer's zone: relative ones stay true, running ones count, each names its zone on hover.
import { distance, duration, minute, stamp } from "./format.js";

function write() {
  const now = Date.now();
  for (const element of document.querySelectorAll("time[data-relative]")) {
    put(element, distance(new Date(element.dateTime), now));
  }
  for (const element of document.querySelectorAll("[data-since]")) {
    put(element, duration(Math.max(0, Math.floor((now - new Date(element.dataset.since)) / 1000))));
  }
}

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function localise(root) {
  for (const element of root.querySelectorAll("time[data-relative], time[data-absolute]")) {
    const when = new Date(element.dateTime);
    element.title = stamp(when);
    if ("absolute" in element.dataset) put(element, minute(when));
  }
  write();
}

setInterval(() => document.hidden || write(), 1000);
