// What a live page does with what arrives: a doorbell re-fetches the fragments it names, a tick fills values in
// place, a silent line is said so. While the line is down the fragments are polled; when it is back they are
// fetched once.
import { format } from "./format.js";
import { SILENT, connect, live, send, state } from "./socket.js";
import { toast } from "./toast.js";

const POLL = 5000;
const ENDED = {
  4401: "You are logged out. Reload this page to log in again;",
  4404: "This is gone, or no longer yours to see;",
};
const page = { updated: Date.now(), loaded: Date.now(), ended: "", polled: 0, seen: false, left: false };

/* ── fragments ─────────────────────────────────────────────────────────────────────────────────── */
const waiting = new Set();
let timer = 0;

function ring(what) {
  if (page.left) return; // what it showed may be gone
  for (const element of document.querySelectorAll("[data-refresh]")) {
    const names = element.dataset.refresh.split(" ");
    if (!what || what.some((name) => names.includes(name))) waiting.add(element);
  }
  fetchIn(80); // several rings within a blink are one fetch
}

function fetchIn(wait) {
  clearTimeout(timer);
  timer = setTimeout(fetchWaiting, wait);
}

// Somebody typing or choosing in a fragment is not interrupted: it is fetched once they are done.
function busy(element) {
  const focus = document.activeElement;
  const typing = element.contains(focus) && /^(INPUT|TEXTAREA|SELECT)$/.test(focus.tagName);
  return typing || Boolean(element.querySelector("details.menu[open], dialog[open]"));
}

function fetchWaiting() {
  for (const element of waiting) {
    if (!element.isConnected) waiting.delete(element);
    else if (!busy(element) && element.dataset.fetching !== "yes") {
      waiting.delete(element);
      refresh(element);
    }
  }
  if (waiting.size) fetchIn(500);
}

async function refresh(element) {
  element.dataset.fetching = "yes";
  try {
    await window.htmx.ajax("GET", element.getAttribute("hx-get"), { source: element });
    page.updated = Date.now();
  } catch {
    again(element, POLL);
  } finally {
    delete element.dataset.fetching;
  }
}

function again(element, wait) {
  setTimeout(() => {
    waiting.add(element);
    fetchIn(80);
  }, wait);
}

// What could not be had would else be old until the next ring.
document.addEventListener("htmx:responseError", ({ detail: { elt, xhr } }) => {
  if (elt.dataset.fetching && xhr.status >= 500) again(elt, POLL);
});

/* What a reader has opened stays open when its fragment comes anew; an answer that finds them busy is asked for later. */
const opened = new WeakMap();
document.addEventListener("htmx:beforeSwap", (event) => {
  const { elt, target } = event.detail;
  if (elt === target && target.dataset.fetching && busy(target)) {
    event.detail.shouldSwap = false;
    again(target, 500);
    return;
  }
  const ids = [...event.detail.target.querySelectorAll("details[id][open]")].map((details) => details.id);
  if (ids.length) opened.set(event.detail.xhr, ids);
});
document.addEventListener("htmx:afterSettle", (event) => {
  for (const id of opened.get(event.detail.xhr) ?? []) {
    const details = document.getElementById(id);
    if (details) details.open = true;
  }
});

/* ── values ────────────────────────────────────────────────────────────────────────────────────── */
const at = (data, path) => path.split(".").reduce((part, key) => part?.[key], data);

function fill(data) {
  for (const element of document.querySelectorAll("[data-tick]")) {
    const found = at(data, element.dataset.tick);
    if (found === undefined) continue;
    const rich = found !== null && typeof found === "object";
    const value = rich ? found.value : found;
    const text = format(value, element.dataset.format);
    if (element.textContent !== text) element.textContent = text;
    const tile = element.closest(".tile");
    if (tile) dress(tile, typeof value === "string", rich ? found : {});
  }
}

// A tile's live value may be {value, tone, tone_label, note, points}; a text as value stands for a missing number.
function dress(tile, absent, { tone, tone_label: label, note, points }) {
  tile.querySelector(".tile-value").classList.toggle("tile-absent", absent);
  for (const part of tile.querySelectorAll(".tile-unit, .spark")) part.toggleAttribute("hidden", absent);
  const badge = tile.querySelector(".status");
  if (badge && tone !== undefined) {
    badge.hidden = !tone || absent;
    badge.className = `status is-${tone ?? "idle"}`;
    badge.textContent = label ?? "";
  }
  const words = tile.querySelector(".tile-note");
  if (words && note !== undefined) words.textContent = note ?? "";
  if (points) tile.querySelector(".spark path")?.setAttribute("d", sparkline(points));
}

export function sparkline(points) {
  const known = points.filter((point) => point !== null);
  if (known.length < 2) return "";
  const [low, high] = [Math.min(...known), Math.max(...known)];
  let pen = "M";
  return points.map((point, place) => {
    if (point === null) {
      pen = "M";
      return "";
    }
    const height = high === low ? 12 : 23 - ((point - low) / (high - low)) * 22;
    const part = `${pen}${((place * 100) / (points.length - 1)).toFixed(1)} ${height.toFixed(1)}`;
    pen = "L";
    return part;
  }).join("");
}

/* ── the state of the line ─────────────────────────────────────────────────────────────────────── */
function tell() {
  const banner = document.getElementById("live-banner");
  const quiet = Date.now() - page.updated;
  const broken = !state.open && Date.now() - Math.max(state.heard, page.loaded) > SILENT;
  // The line may be alive while nothing measures: old numbers must not pass for new ones.
  const mute = state.open && quiet > SILENT + 1000 && document.querySelector("[data-tick]") !== null;
  const down = broken || mute || page.ended !== "";
  document.body.classList.toggle("is-stale", down && quiet > SILENT + 1000);
  if (!banner) return;
  banner.hidden = !down;
  if (!down) return;
  const [words, since] = parts(banner.querySelector(".banner-text"));
  const said = page.ended || (mute ? "Nothing measures now…" : "Reconnecting…");
  if (words.textContent !== said) words.textContent = said;
  since.textContent = ` last update ${Math.round(quiet / 1000)} s ago`;
  if (!page.ended && Date.now() - page.polled > POLL && !document.hidden) {
    page.polled = Date.now();
    ring(null);
  }
}

// The seconds are for the eye only: a screen reader hears of the break once.
function parts(text) {
  if (!text.children.length) {
    const seconds = document.createElement("span");
    seconds.setAttribute("aria-hidden", "true");
    text.append(document.createElement("span"), seconds);
  }
  return text.children;
}

/* ── actions ───────────────────────────────────────────────────────────────────────────────────── */
const asked = new Map();

// A form with data-verb goes over the socket while that is open; else it posts in the plain way.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.dataset.verb || !state.open || !form.reportValidity()) return;
  const { csrfmiddlewaretoken: _, ...args } = Object.fromEntries(new FormData(form, event.submitter));
  const id = crypto.randomUUID?.() ?? String(Math.random());
  if (!send({ type: "action", verb: form.dataset.verb, args, id })) return;
  event.preventDefault();
  event.submitter?.setAttribute("aria-disabled", "true");
  asked.set(id, { form, button: event.submitter, timer: setTimeout(() => late(id), 8000) });
}, true);

function done(id) {
  const request = asked.get(id);
  asked.delete(id);
  clearTimeout(request?.timer);
  request?.button?.removeAttribute("aria-disabled");
  return request;
}

// The answer may still come, and is heard then.
function late(id) {
  asked.get(id).button?.removeAttribute("aria-disabled");
  toast("No answer yet. If the action took place, this page shows it by itself.", { tone: "warn" });
}

live.addEventListener("result", ({ detail: { id, ok, message, url, undo, field } }) => {
  const request = done(id);
  if (ok) request?.form.closest("dialog")?.close();
  page.left = Boolean(ok && url);
  if (page.left) location.assign(url);
  else if (!ok && field && request?.form.elements[field]) wrong(request.form.elements[field], message);
  else if (message) toast(message, { tone: ok ? "ok" : "bad", undo });
});

// Said at the field, until it is changed.
function wrong(control, message) {
  control.setCustomValidity(message);
  control.reportValidity();
  for (const change of ["input", "reset"]) {
    control.form.addEventListener(change, () => control.setCustomValidity(""), { once: true });
  }
}

/* ── start ─────────────────────────────────────────────────────────────────────────────────────── */
live.addEventListener("doorbell", ({ detail }) => ring(detail.what));
live.addEventListener("tick", ({ detail }) => {
  page.updated = Date.now();
  if (!document.hidden) fill(detail.data);
  document.dispatchEvent(new CustomEvent("tick", { detail }));
});
live.addEventListener("beat", () => {
  if (!document.querySelector("[data-tick]")) page.updated = Date.now();
});
live.addEventListener("refused", ({ detail }) => (page.ended = ENDED[detail.code]));
live.addEventListener("open", () => {
  page.updated = Date.now();
  if (page.seen || Date.now() - page.loaded > SILENT) ring(null); // what rang shortly before, the server says
  page.seen = true;
});

export function start(path) {
  addEventListener("pageshow", () => (page.left = false));
  connect(path);
  setInterval(tell, 1000);
}
