// Uploads that go on after a cut, by the tus protocol: files in pieces, each with its checksum, two files at once.
import { bytes, duration } from "./format.js";
import { icon } from "./toast.js";

const PIECE = 8 * 1024 * 1024;
const AT_ONCE = 2;
const TRIES = 8; // in a row without a piece that arrived
const LATER = [404, 410]; // the upload is gone: begin it again
const TUS = { "Tus-Resumable": "1.0.0" };

export function begin(root) {
  const page = {
    url: root.dataset.upload, csrf: root.dataset.csrf, list: root.querySelector("[data-uploads]"),
    waiting: [], active: new Set(), failed: 0, done: 0,
  };
  for (const input of root.querySelectorAll("[data-files]"))
    input.addEventListener("change", () => {
      add(page, [...input.files].map((file) => ({ file, path: within(file.webkitRelativePath) || file.name })));
      input.value = "";
    });
  const drop = root.querySelector("[data-drop]");
  drop.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("is-over");
  });
  drop.addEventListener("dragleave", () => drop.classList.remove("is-over"));
  drop.addEventListener("drop", async (event) => {
    event.preventDefault();
    drop.classList.remove("is-over");
    add(page, await dropped(event.dataTransfer));
  });
  addEventListener("beforeunload", (event) => page.active.size && event.preventDefault());
}

// The path inside the chosen folder: what is chosen is the version itself.
const within = (path) => path.split("/").slice(1).join("/");

async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const found = [];
  for (const entry of entries) await walk(entry, "", found, entries.length === 1);
  return found;
}

async function walk(entry, folder, found, top) {
  if (entry.isFile) {
    const file = await new Promise((done, fail) => entry.file(done, fail));
    found.push({ file, path: folder + file.name });
    return;
  }
  const reader = entry.createReader();
  const inside = top ? "" : `${folder}${entry.name}/`;
  for (;;) {
    const some = await new Promise((done, fail) => reader.readEntries(done, fail)); // a hundred at a time
    if (!some.length) return;
    for (const one of some) await walk(one, inside, found, false);
  }
}

function add(page, files) {
  for (const { file, path } of files) page.waiting.push(shown(page, { file, path, url: "", offset: 0, paused: false }));
  next(page);
}

function next(page) {
  while (page.active.size < AT_ONCE && page.waiting.length) {
    const job = page.waiting.shift();
    page.active.add(job);
    send(page, job).catch((problem) => fail(page, job, problem)).finally(() => {
      page.active.delete(job);
      next(page);
      if (!page.active.size && !page.waiting.length && page.done && !page.failed) location.reload();
    });
  }
}

async function send(page, job) {
  job.began = { at: performance.now(), offset: 0 };
  await open(page, job);
  for (let failures = 0; job.offset < job.file.size && !job.removed; ) {
    if (job.paused) await new Promise((go) => (job.go = go));
    if (job.removed) return;
    const status = await piece(page, job);
    if (status === 204) failures = 0;
    else if (!job.paused && !job.removed) failures = await mend(page, job, status, failures + 1);
  }
  if (job.removed) return;
  localStorage.removeItem(memory(job));
  page.done += 1;
  job.row.classList.add("is-done");
  tell(job, `${bytes(job.file.size)} are here`, job.file.size);
  for (const button of job.row.querySelectorAll("button")) button.hidden = true;
}

// Go on with what an earlier visit began, if it was of this very file; else open a new upload.
async function open(page, job) {
  const before = document.querySelector(`[data-unfinished="${CSS.escape(job.path)}"]`);
  if (before && !job.url) {
    job.url = before.dataset.url;
    const known = localStorage.getItem(memory(job)) === mark(job.file);
    if (known && (await ask(page, job))) return;
    await call(page, "DELETE", job.url);
  }
  const path = btoa(String.fromCharCode(...new TextEncoder().encode(job.path)));
  const answer = await call(page, "POST", page.url, { "Upload-Length": job.file.size, "Upload-Metadata": `path ${path}` });
  if (answer.status !== 201) throw new Error(await words(answer));
  job.url = answer.headers.get("Location");
  job.offset = job.began.offset = 0;
  localStorage.setItem(memory(job), mark(job.file));
}

const memory = (job) => `tir-upload:${job.url}`;
const mark = (file) => `${file.size} ${file.lastModified} ${file.name}`;

// The server's offset; false when it knows nothing of the upload any more.
async function ask(page, job) {
  const answer = await call(page, "HEAD", job.url);
  if (LATER.includes(answer.status)) return false;
  if (answer.status !== 200 || !answer.headers.has("Upload-Offset")) throw new Error(await words(answer));
  job.offset = job.began.offset = Number(answer.headers.get("Upload-Offset"));
  job.began.at = performance.now();
  return true;
}

async function piece(page, job) {
  const part = job.file.slice(job.offset, job.offset + PIECE);
  const headers = { "Content-Type": "application/offset+octet-stream", "Upload-Offset": job.offset };
  if (crypto.subtle) headers["Upload-Checksum"] = `sha256 ${await checksum(part)}`;
  if (job.paused || job.removed) return 0; // while that was reckoned
  return new Promise((done) => {
    const request = (job.request = new XMLHttpRequest());
    request.open("PATCH", job.url);
    for (const [name, value] of Object.entries({ ...TUS, "X-CSRFToken": page.csrf, ...headers })) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => progress(job, job.offset + event.loaded);
    request.onload = () => {
      if (request.status === 204) job.offset = Number(request.getResponseHeader("Upload-Offset"));
      else job.said = request.responseText;
      progress(job, job.offset);
      done(request.status);
    };
    request.onerror = request.onabort = () => done(0);
    request.send(part);
  });
}

async function checksum(part) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await part.arrayBuffer()));
  return btoa(String.fromCharCode(...digest));
}

// What a piece that did not arrive asks for; answers how many failures in a row there were.
async function mend(page, job, status, failures) {
  if (failures > TRIES || ![0, 404, 409, 410, 423, 460, 502, 503, 504].includes(status)) throw new Error(said(job.said, status));
  if (status === 0 || status >= 500) {
    tell(job, "The connection was lost; trying again…");
    await new Promise((go) => setTimeout(go, Math.min(15000, 500 * 2 ** failures)));
  }
  try {
    if (!(await ask(page, job))) await open(page, job);
  } catch (problem) {
    if (!(problem instanceof TypeError)) throw problem; // fetch's word for no connection
  }
  return failures;
}

const call = (page, method, url, headers = {}) =>
  fetch(url, { method, redirect: "manual", headers: { ...TUS, "X-CSRFToken": page.csrf, ...headers } });

async function words(answer) {
  return said(await answer.text().catch(() => ""), answer.status);
}

function said(text, status) {
  try {
    return JSON.parse(text).error.message;
  } catch {
    return status === 0 ? "You are logged out, or the console can't be reached. Reload the page." : `The console answered ${status}.`;
  }
}

// ── what is seen of it ──────────────────────────────────────────────────────────────────────────
function shown(page, job) {
  const row = document.createElement("li");
  row.innerHTML = '<div class="progress"><div class="progress-line"><span class="wrap-anywhere"></span><span class="nowrap"></span></div><progress></progress></div><div class="row"></div><p class="error" role="alert" hidden></p>';
  job.row = row;
  row.querySelector(".wrap-anywhere").textContent = job.path;
  const bar = row.querySelector("progress");
  bar.max = job.file.size || 1;
  bar.setAttribute("aria-label", `Upload of ${job.path}`);
  const pause = button("Pause", "pause", () => {
    job.paused = !job.paused;
    pause.lastChild.textContent = job.paused ? "Go on" : "Pause";
    if (job.paused) job.request?.abort();
    else job.go?.();
    if (job.paused) tell(job, `Paused at ${bytes(job.offset)} of ${bytes(job.file.size)}`, job.offset);
    job.began = { at: performance.now(), offset: job.offset };
  });
  const stop = button("Remove", "x", async () => {
    job.removed = true;
    page.waiting = page.waiting.filter((other) => other !== job);
    job.request?.abort();
    job.go?.();
    row.remove();
    if (job.url) await call(page, "DELETE", job.url);
  });
  row.querySelector(".row").append(pause, stop);
  tell(job, `${bytes(job.file.size)}, waiting`, 0);
  page.list.append(row);
  return job;
}

function button(text, name, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = "btn btn-small";
  made.append(icon(name), text);
  made.addEventListener("click", act);
  return made;
}

function progress(job, sent) {
  const seconds = (performance.now() - job.began.at) / 1000;
  const rate = seconds > 1 ? (sent - job.began.offset) / seconds : 0;
  const left = rate > 0 ? ` · ${bytes(rate)}/s · ${duration((job.file.size - sent) / rate)} left` : "";
  tell(job, `${bytes(sent)} of ${bytes(job.file.size)}${left}`, sent);
}

function tell(job, text, sent = null) {
  job.row.querySelector(".nowrap").textContent = text;
  if (sent !== null) job.row.querySelector("progress").value = sent;
}

function fail(page, job, problem) {
  if (job.removed) return;
  page.failed += 1;
  const line = job.row.querySelector(".error");
  line.textContent = problem.message;
  line.hidden = false;
  tell(job, "Stopped");
  job.row.querySelector("button").hidden = true;
}
