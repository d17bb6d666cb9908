// The page's one websocket: opens, comes back with growing, jittered waits, and says what arrives as events of
// `live`: "open", "down", and one per message type ("doorbell", "tick", "log", "result", …), detail = the message.
// The server says something at least every 2 s (a tick or {"type": "beat"}); silence for SILENT ms is a dead line.
export const SILENT = 5000;
const LOGGED_OUT = 4401;
const GONE = 4404;
export const live = new EventTarget();
export const state = { url: "", socket: null, open: false, ended: false, heard: Date.now(), tries: 0 };

const say = (type, detail) => live.dispatchEvent(new CustomEvent(type, { detail }));

export function send(message) {
  if (!state.open) return false;
  state.socket.send(JSON.stringify(message));
  return true;
}

export function connect(path) {
  state.url = new URL(path, location.href.replace(/^http/, "ws")).href;
  open();
  setInterval(watch, 1000);
  document.addEventListener("visibilitychange", () => document.hidden || watch());
  window.addEventListener("online", () => state.socket || again(0));
}

function open() {
  const socket = new WebSocket(state.url);
  state.socket = socket;
  socket.addEventListener("open", () => {
    Object.assign(state, { open: true, tries: 0, heard: Date.now() });
    say("open");
  });
  socket.addEventListener("message", (event) => {
    state.heard = Date.now();
    const message = JSON.parse(event.data);
    say(message.type, message);
  });
  socket.addEventListener("close", ({ code }) => {
    if (socket !== state.socket) return;
    if (code !== LOGGED_OUT && code !== GONE) lost();
    else {
      Object.assign(state, { open: false, socket: null, ended: true });
      say("refused", { code });
    }
  });
}

function lost() {
  const was = state.open;
  Object.assign(state, { open: false, socket: null });
  if (was) say("down");
  again(Math.min(30000, 500 * 2 ** state.tries) * (0.5 + Math.random() / 2));
  state.tries += 1;
}

let waiting = 0;
function again(wait) {
  clearTimeout(waiting);
  waiting = setTimeout(() => state.socket || state.ended || open(), wait);
}

function watch() {
  if (!state.open || Date.now() - state.heard < SILENT) return;
  const socket = state.socket;
  lost(); // a line that says nothing is down, whatever the browser thinks
  socket.close();
}
