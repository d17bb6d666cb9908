// Streams one chat through the gateway and measures it as a client would: first token, total, tokens, cost.
import { duration, format, money } from "./format.js";

let typed = null; // outlives a form that a newer one replaces, as when the endpoint becomes active

export function begin(form) {
  if (form.dataset.begun) return;
  form.dataset.begun = "yes";
  const part = (name) => form.querySelector(`[data-tryit-${name}]`);
  const box = {
    form, key: part("key"), text: part("text"), max: part("max"), send: part("send"), stop: part("stop"),
    answer: part("answer"), meters: part("meters"), abort: null,
  };
  box.text.value = typed ?? box.text.value;
  box.text.addEventListener("input", () => (typed = box.text.value));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    event.stopImmediatePropagation();
    if (!box.abort && box.send.getAttribute("aria-disabled") !== "true") run(box);
  });
  box.stop.addEventListener("click", () => box.abort?.abort());
  box.text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
}

async function run(box) {
  box.abort = new AbortController();
  box.stop.hidden = false;
  box.send.setAttribute("aria-disabled", "true");
  box.answer.hidden = box.meters.hidden = false;
  box.answer.classList.remove("tone-bad");
  box.answer.textContent = "";
  const call = { began: 0, answered: false, served: false, first: null, ended: null, pieces: 0, usage: null };
  show(box, call);
  try {
    const answer = await ask(box, call);
    call.answered = true;
    call.served = answer.ok;
    if (!answer.ok) throw new Error(await reason(answer));
    for await (const event of events(answer.body)) {
      if (event.error) throw new Error(event.error.message);
      take(box, call, event);
    }
    if (!call.pieces) throw new Error("The endpoint answered without a single token.");
  } catch (error) {
    if (error.name !== "AbortError") fail(box, error, call);
  } finally {
    call.ended = performance.now();
    show(box, call);
    box.abort = null;
    box.stop.hidden = true;
    box.send.removeAttribute("aria-disabled");
  }
}

async function ask(box, call) {
  const token = await bearer(box);
  call.began = performance.now();
  return fetch(box.form.dataset.url, {
    method: "POST",
    signal: box.abort.signal,
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${token}` },
    body: JSON.stringify({
      model: box.form.dataset.model,
      messages: [{ role: "user", content: box.text.value }],
      max_tokens: Number(box.max.value) || 128,
      stream: true,
      stream_options: { include_usage: true },
    }),
  });
}

let held = { token: "", until: 0, url: "" };
async function bearer({ form, key }) {
  if (key) return key.value.trim();
  if (held.until > Date.now() && held.url === form.dataset.tokenUrl) return held.token;
  const token = form.querySelector("[name=csrfmiddlewaretoken]").value;
  const answer = await fetch(form.dataset.tokenUrl, { method: "POST", headers: { "X-CSRFToken": token } });
  if (!answer.ok) throw new Error("The console gave no token for this call. Reload the page and try again.");
  const given = await answer.json();
  held = { token: given.token, until: Date.now() + (given.expires_in - 10) * 1000, url: form.dataset.tokenUrl };
  return held.token;
}

async function reason(answer) {
  const wait = answer.headers.get("Retry-After");
  const words = await answer.json().then((body) => body.error?.message, () => null);
  return `${answer.status}: ${words ?? answer.statusText}${wait ? ` Try again in ${wait} s.` : ""}`;
}

// Server-sent events as objects; a chunk may end anywhere, also within a character.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    const lines = rest.split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      const data = line.startsWith("data:") ? line.slice(5).trim() : "";
      if (data === "[DONE]") return;
      if (data) yield JSON.parse(data);
    }
  }
}

function take(box, call, event) {
  if (event.usage) call.usage = event.usage;
  const text = event.choices?.[0]?.delta?.content;
  if (!text) return;
  call.first ??= performance.now();
  call.pieces += 1;
  box.answer.append(text);
  show(box, call);
}

function fail(box, error, call) {
  const unreachable = error instanceof TypeError;
  const words = unreachable
    ? `${new URL(box.form.dataset.url).origin} did not answer. Is the gateway running, and can this browser reach it?`
    : error.message;
  box.answer.append(call.pieces ? `\n\n${words}` : words);
  box.answer.classList.add("tone-bad");
}

function show(box, call) {
  const meter = (name, text) => (box.meters.querySelector(`[data-m="${name}"]`).textContent = text);
  const now = call.ended ?? performance.now();
  const seconds = call.began ? (now - call.began) / 1000 : null;
  const tokens = call.usage?.completion_tokens ?? (call.pieces || null);
  const writing = call.first ? (now - call.first) / 1000 : 0;
  meter("ttft", call.first ? format(call.first - call.began, "ms") : "—");
  meter("total", duration(seconds));
  meter("tokens", call.usage ? `${call.usage.prompt_tokens} in, ${tokens} out` : tokens ? `${tokens} out` : "—");
  meter("speed", tokens > 1 && writing > 0 ? `${format((tokens - 1) / writing, "number")} tokens/s` : "—");
  meter("cost", call.answered ? cost(box.form.dataset, call.served ? seconds : 0) : "—");
}

// What this call adds: the price of a request, and the time it held of one instance.
function cost({ priceRequest, priceHour, currency }, seconds) {
  if (priceRequest === "" && priceHour === "") return "—";
  return money(Number(priceRequest) + (Number(priceHour) * (seconds ?? 0)) / 3600, currency);
}
