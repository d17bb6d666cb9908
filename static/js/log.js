// The log viewer. Follows until somebody scrolls up; holds at most KEPT lines in the page, older ones are fetched
// when scrolled to; comes back from a lost line at the sequence number it had.
import { live, send, state } from "./socket.js";
import { icon } from "./toast.js";

const KEPT = 2000;
const STEP = 500;
const POLL = 2000;
const COLOURS = /\u001b\[[0-9;?]*[A-Za-z]/g;

export function begin(root) {
  if (root.dataset.begun) return;
  root.dataset.begun = "yes";
  const part = (name) => root.querySelector(`[data-log-${name}]`);
  const view = {
    root, box: part("lines"), state: part("state"), newest: part("newest"), toggle: part("toggle"),
    hits: part("hits"), following: true, held: 0, query: "", loading: false, whole: false, cut: false,
    instance: root.dataset.instance, url: root.dataset.url, live: "follow" in root.dataset,
  };
  part("search").addEventListener("input", (event) => search(view, event.target.value));
  part("wrap").addEventListener("click", ({ currentTarget: button }) => {
    const on = view.box.classList.toggle("log-wrap");
    button.setAttribute("aria-pressed", String(on));
  });
  part("instance")?.addEventListener("change", (event) => change(view, event.target.value));
  view.toggle.addEventListener("click", () => (view.following ? pause(view) : resume(view)));
  view.newest.addEventListener("click", () => resume(view));
  view.box.addEventListener("scroll", () => scrolled(view), { passive: true });
  for (const when of view.box.querySelectorAll("time")) when.textContent = clock(when.dateTime);
  new ResizeObserver(() => view.following && bottom(view)).observe(view.box);
  if (view.live) follow(view);
  bottom(view);
  say(view);
}

const seqOf = (element) => Number(element?.dataset.seq ?? 0);
const lines = (view) => view.box.querySelectorAll(".log-line");
const first = (view) => seqOf(view.box.querySelector(".log-line"));
const last = (view) => view.box.lastSeq ?? seqOf([...lines(view)].at(-1));

/* ── where lines come from ─────────────────────────────────────────────────────────────────────── */
function follow(view) {
  const ask = () => send({ type: "follow", instance: view.instance, after: last(view) });
  ask();
  live.addEventListener("open", ask);
  live.addEventListener("log", ({ detail }) => {
    if (!view.root.isConnected || (detail.instance && detail.instance !== view.instance)) return;
    add(view, detail.lines);
  });
  setInterval(() => {
    if (!state.open && !document.hidden && view.root.isConnected) load(view, { after: last(view) });
  }, POLL);
  document.addEventListener("visibilitychange", () => document.hidden || ask());
}

async function load(view, place) {
  if (view.loading || !view.url) return [];
  view.loading = true;
  try {
    const query = new URLSearchParams({ instance: view.instance ?? "", limit: String(STEP), ...place });
    const answer = await fetch(`${view.url}?${query}`, { headers: { Accept: "application/json" } });
    if (!answer.ok) return [];
    const got = (await answer.json()).lines;
    if (!("before" in place)) add(view, got);
    return got;
  } catch {
    return []; // the banner says that the console is away; the next try is in two seconds
  } finally {
    view.loading = false;
  }
}

async function older(view) {
  if (view.whole || !first(view)) return;
  const got = await load(view, { before: first(view) });
  view.whole = got.length === 0;
  if (!got.length) return;
  const before = view.box.scrollHeight;
  view.box.prepend(...got.map((line) => draw(view, line)));
  view.box.scrollTop += view.box.scrollHeight - before;
  const many = [...lines(view)].slice(KEPT);
  view.cut ||= many.length > 0;
  for (const line of many) line.remove();
  say(view);
}

async function change(view, instance) {
  send({ type: "unfollow" });
  Object.assign(view, { instance, whole: false, cut: false, held: 0 });
  view.box.lastSeq = 0;
  view.box.replaceChildren();
  history.replaceState(null, "", withInstance(instance));
  await load(view, {});
  if (view.live) send({ type: "follow", instance, after: last(view) });
  resume(view);
}

function withInstance(instance) {
  const url = new URL(location.href);
  url.searchParams.set("instance", instance);
  return url;
}

/* ── what is drawn ─────────────────────────────────────────────────────────────────────────────── */
function add(view, fresh) {
  const known = last(view);
  const news = fresh.filter((line) => line.gap || line.seq > known);
  if (!news.length) return;
  view.box.querySelector("[data-log-empty]")?.remove();
  view.box.lastSeq = Math.max(known, ...news.map((line) => line.seq ?? 0));
  if (!view.following) view.held += news.length;
  if (view.following || lines(view).length + news.length <= KEPT) {
    if (!view.cut) view.box.append(...news.map((line) => draw(view, line)));
  } else {
    view.cut = true; // the newest are fetched anew on resume
  }
  if (view.following) {
    while (view.box.childElementCount > KEPT) view.box.firstElementChild.remove();
    view.whole = false;
    bottom(view);
  }
  say(view);
}

function draw(view, line) {
  const row = document.createElement("div");
  if (line.gap) {
    row.className = "log-gap";
    row.textContent = line.gap === true ? "Lines are missing here." : `${line.gap} lines are missing here.`;
    return row;
  }
  const when = document.createElement("time");
  const text = document.createElement("span");
  row.className = `log-line ${line.stream}`;
  row.dataset.seq = line.seq;
  when.dateTime = line.at;
  when.textContent = clock(line.at);
  text.className = "log-text";
  text.textContent = line.text.replace(COLOURS, "");
  row.append(when, text);
  if (view.query) match(row, view.query);
  return row;
}

const clock = (at) => new Date(at).toLocaleTimeString("en-GB");

function match(row, query) {
  const text = row.querySelector(".log-text");
  const words = text.textContent;
  const found = words.toLowerCase().indexOf(query);
  row.hidden = Boolean(query) && found < 0;
  text.textContent = words;
  if (!query || found < 0) return !row.hidden;
  const mark = document.createElement("mark");
  mark.textContent = words.slice(found, found + query.length);
  text.replaceChildren(words.slice(0, found), mark, words.slice(found + query.length));
  return true;
}

function search(view, words) {
  view.query = words.trim().toLowerCase();
  let hits = 0;
  for (const row of lines(view)) hits += match(row, view.query) ? 1 : 0;
  view.hits.textContent = view.query ? `${hits} of ${lines(view).length} lines` : "";
  if (view.following) bottom(view);
}

/* ── following ─────────────────────────────────────────────────────────────────────────────────── */
function bottom(view) {
  view.box.scrollTop = view.box.scrollHeight;
}

function scrolled(view) {
  const { scrollTop, scrollHeight, clientHeight } = view.box;
  const low = scrollHeight - scrollTop - clientHeight < 24;
  if (view.following && !low) pause(view);
  else if (!view.following && low && !view.stopped && !view.cut) resume(view);
  if (scrollTop < 200) older(view);
}

function pause(view) {
  view.following = false;
  view.stopped = document.activeElement === view.toggle;
  button(view.toggle, "play", "Follow");
  say(view);
}

async function resume(view) {
  view.stopped = false;
  if (view.cut) {
    view.box.replaceChildren();
    view.box.lastSeq = 0;
    view.cut = false;
    await load(view, {});
  }
  Object.assign(view, { following: true, held: 0 });
  button(view.toggle, "pause", "Pause");
  bottom(view);
  say(view);
}

function button(element, name, label) {
  const words = document.createElement("span");
  words.textContent = label;
  element.replaceChildren(icon(name), words);
}

function say(view) {
  const count = lines(view).length;
  const shown = `${count.toLocaleString("en-US")} ${count === 1 ? "line" : "lines"}`;
  view.state.textContent = view.following ? `${shown}${view.live ? ", following" : ""}` : `${shown}, paused`;
  view.newest.hidden = view.following;
  if (view.held) button(view.newest, "down", `${view.held.toLocaleString("en-US")} new`);
  else button(view.newest, "down", "Newest");
}
