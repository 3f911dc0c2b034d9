// The page of the chat. From top to bottom: the link to the server, what the page knows, how it shows it,
// what the server says, what the person does.

const TEXT_LIMIT = 4000; // characters; the server refuses more
const FRAME_LIMIT = 60_000; // bytes; the server closes the connection for a frame over 64 KiB

const RETRY_BASE = 500; // milliseconds
const RETRY_CAP = 20_000;
const STEADY = 5_000; // a connection that held for so long makes the next wait short again
const ANSWER_DEADLINE = 10_000; // no answer for so long means that nobody is there

const SIGN_IN_AGAIN = [4401, 4519]; // close codes: nobody knows this page (any more), or its time is over

const TYPING_INTERVAL = 3_000;
const TYPING_LIFETIME = 5_000;
const LEAVE_GRACE = 5_000; // whoever is back within it, say by reloading, never left
const OUTAGE_GRACE = RETRY_CAP + LEAVE_GRACE; // the same after an outage, when others come back later than we
const GROUP_WITHIN = 5 * 60_000; // lines of one person so close together share a heading

// What pydantic finds wrong with a message, in the words of a chat.
const PLAIN_WORDS = new Map([
  ["string_too_long", `This is too long: a message has room for ${TEXT_LIMIT} characters.`],
  ["string_too_short", "There is nothing in this message."],
]);

// ---------------------------------------------------------------------------------------------- the link

/** Why a call got no answer: the connection was lost, or there was none. */
class Lost extends Error {}

/** The server's answer to a call that failed. */
class Refused extends Error {
  constructor({ code, message, details }) {
    const problem = details?.[0];
    super(PLAIN_WORDS.get(problem?.type) ?? problem?.msg ?? message);
    this.code = code;
  }
}

/** Whether a client that was closed with this code may come back without changing anything. */
function mayComeBack(code) {
  return ![1000, 1002, 1003, 1007, 1008, 1009].includes(code) && !(code >= 4400 && code <= 4499);
}

/**
 * A connection that is made again when it is lost, and calls that are paired with their answers.
 *
 * Its states: "connecting", "online" (once `ready` was called), "offline" (tries again at `retryAt`),
 * "stopped" (the server does not want this client back unchanged), "closed" (by us).
 */
class Link {
  state = "closed";
  retryAt = 0;
  #url;
  #onFrame;
  #onState;
  #socket = null;
  #timer = 0;
  #attempt = 0;
  #onlineSince = 0;
  #calls = new Map();
  #nextId = 1;
  #signIn;
  #signedIn = false; // whether that was done since the connection held
  #opening = 0; // raised when what is under way is given up

  constructor(url, { signIn, onFrame, onState }) {
    this.#url = url;
    this.#signIn = signIn;
    this.#onFrame = onFrame;
    this.#onState = onState;
  }

  async open({ signIn = false } = {}) {
    this.#drop();
    this.#change("connecting");
    if (signIn) {
      const opening = this.#opening;
      try {
        await this.#signIn();
      } catch (error) {
        if (opening !== this.#opening) return;
        if (error instanceof Lost) this.#retryLater({ code: 1006, reason: error.message }, true);
        else this.#change("stopped", { code: error.code, reason: error.message });
        return;
      }
      if (opening !== this.#opening) return;
      this.#signedIn = true;
    }
    this.#socket = new WebSocket(this.#url);
    this.#socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    this.#socket.onclose = ({ code, reason }) => this.#lose(code, reason);
    this.#timer = setTimeout(() => this.#lose(1006, ""), ANSWER_DEADLINE);
  }

  /** The server has said all that a newcomer needs. */
  ready() {
    clearTimeout(this.#timer);
    this.#onlineSince = Date.now();
    this.#signedIn = false;
    this.#change("online");
  }

  retryNow() {
    if (this.state === "stopped") this.#signedIn = false;
    if (this.state === "offline" || this.state === "stopped") this.open();
  }

  close() {
    this.#drop();
    this.#change("closed");
  }

  /** Sends a message that nobody answers; without a connection it is forgotten. */
  send(type, data) {
    if (this.state === "online") this.#socket.send(JSON.stringify({ type, data }));
  }

  /** Sends a message and returns the frame that answers it. Throws Lost or Refused. */
  call(type, data) {
    return new Promise((resolve, reject) => {
      if (this.state !== "online") throw new Lost("There is no connection.");
      const id = this.#nextId++;
      const frame = JSON.stringify({ type, id, data });
      if (new Blob([frame]).size > FRAME_LIMIT) {
        throw new Refused({ code: "too_large", message: "This is far too long to be sent." });
      }
      const timer = setTimeout(() => this.#lose(1006, ""), ANSWER_DEADLINE);
      this.#calls.set(id, { resolve, reject, timer });
      this.#socket.send(frame);
    });
  }

  #receive(frame) {
    const call = this.#calls.get(frame.id);
    if (!call) return this.#onFrame(frame);
    this.#calls.delete(frame.id);
    clearTimeout(call.timer);
    if (frame.type === "$error") call.reject(new Refused(frame.error));
    else call.resolve(frame);
  }

  #lose(code, reason) {
    if (this.state === "online" && Date.now() - this.#onlineSince > STEADY) this.#attempt = 0;
    this.#drop();
    if (SIGN_IN_AGAIN.includes(code) && !this.#signedIn) this.open({ signIn: true });
    else if (mayComeBack(code)) this.#retryLater({ code, reason }, code === 4519);
    else this.#change("stopped", { code, reason });
  }

  #retryLater(close, signIn = false) {
    // Full jitter: clients that were lost together do not come back together.
    const delay = Math.random() * Math.min(RETRY_CAP, RETRY_BASE * 2 ** this.#attempt++);
    this.retryAt = Date.now() + delay;
    this.#timer = setTimeout(() => this.open({ signIn }), delay);
    this.#change("offline", close);
  }

  #drop() {
    this.#opening++;
    clearTimeout(this.#timer);
    if (this.#socket) {
      this.#socket.onmessage = this.#socket.onclose = null;
      this.#socket.close();
      this.#socket = null;
    }
    for (const { reject, timer } of this.#calls.values()) {
      clearTimeout(timer);
      reject(new Lost("The connection was lost."));
    }
    this.#calls.clear();
  }

  #change(state, close) {
    this.state = state;
    this.#onState(state, close);
  }
}

// ---------------------------------------------------------------------------------- what the page knows

let me = "";
let chosen = false; // whether the person has just said which name to have
let room = "";
let link = null;

const lines = new Map(); // id of a line → its element
let oldest = Infinity; // ids
let newest = 0;
let newestBefore = 0; // the newest when this connection began
const people = new Map(); // name → number of devices
let peopleKnown = false;
const leaving = new Map(); // name → timer that will say so
const typing = new Map(); // name → timer that ends it

// Lines of the person's own that the server has not confirmed: {key, room, text, status, element, error};
// status is "waiting", "sending", "sent" or "failed". They outlive connections.
const outbox = [];
let delivering = false;

let atBottom = true;
let unread = 0;
let lastTyping = 0;

const page = Object.fromEntries(
  [...document.querySelectorAll("[id]")].map((element) => [
    element.id.replace(/-(.)/g, (_, letter) => letter.toUpperCase()),
    element,
  ]),
);
const narrow = matchMedia("(max-width: 799.98px)");
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const calendar = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long", year: "numeric" });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

// ------------------------------------------------------------------------------------- how it is shown

/** Makes an element. Strings among the children become text, never markup. */
function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

function makeButton(className, label, action) {
  const button = make("button", className, label);
  button.type = "button";
  button.addEventListener("click", action);
  return button;
}

/** One of 24 hues, always the same for a name; style.css gives each enough contrast. */
function hueOf(name) {
  let hash = 2166136261;
  for (const character of name) hash = Math.imul(hash ^ character.codePointAt(0), 16777619);
  return ((hash >>> 0) % 24) * 15;
}

function makeFace(name) {
  const face = make("span", "face", [...name][0].toUpperCase());
  face.ariaHidden = "true";
  face.style.setProperty("--hue", hueOf(name));
  return face;
}

function makeName(name) {
  const element = make("span", "name", name);
  element.style.setProperty("--hue", hueOf(name));
  return element;
}

function makeTime(at) {
  const time = make("time", "", clock.format(at));
  time.dateTime = new Date(at).toISOString();
  time.title = moment.format(at);
  return time;
}

function makeMessage(name, text, extra) {
  const who = make("div", "who", makeName(name === me ? "You" : name), extra);
  const item = make("li", "message", makeFace(name), make("div", "body", who, make("div", "text", text)));
  item.classList.toggle("own", name === me);
  if (text.length > 1200 || text.split("\n").length > 16) fold(item);
  return item;
}

function fold(item) {
  item.classList.add("folded");
  const button = makeButton("quiet", "Show all", () => {
    const folded = item.classList.toggle("folded");
    button.textContent = folded ? "Show all" : "Show less";
    button.ariaExpanded = String(!folded);
  });
  button.ariaExpanded = "false";
  item.querySelector(".body").append(button);
}

/** Puts an element into the log by its order (a line's id; half a step more for a note after it). */
function place(item, order, at) {
  Object.assign(item.dataset, { order, at });
  let before = page.lines.lastElementChild;
  while (before && Number(before.dataset.order) > order) before = before.previousElementSibling;
  if (before) before.after(item);
  else page.lines.prepend(item);
  decorate(item);
  if (item.nextElementSibling) decorate(item.nextElementSibling);
}

/** Gives an element of the log a day above it, or draws it up to the one before, as its neighbour demands. */
function decorate(item) {
  const before = item.previousElementSibling;
  const day = calendar.format(Number(item.dataset.at));
  const sameDay = before !== null && calendar.format(Number(before.dataset.at)) === day;
  item.querySelector(".day")?.remove();
  if (!sameDay) item.prepend(make("div", "day", day));
  const follows =
    sameDay &&
    item.dataset.name !== undefined &&
    item.dataset.name === before.dataset.name &&
    Number(item.dataset.at) - Number(before.dataset.at) < GROUP_WITHIN;
  item.classList.toggle("follows", follows);
}

/** Shows many lines at once, which a screen reader should not read out. */
function showLines(many) {
  page.log.ariaBusy = "true";
  many.forEach(showLine);
  page.log.ariaBusy = "false";
}

/** Shows a line unless it is there already; returns whether it was new. */
function showLine({ id, key, name, text, at }) {
  confirmDelivery(key);
  if (lines.has(id)) return false;
  const item = makeMessage(name, text, makeTime(at));
  item.dataset.name = name;
  lines.set(id, item);
  place(item, id, at);
  oldest = Math.min(oldest, id);
  newest = Math.max(newest, id);
  page.empty.hidden = true;
  return true;
}

function showNote(text, className = "") {
  keepingPlace(() => place(make("li", `note ${className}`, make("p", "", text)), newest + 0.5, Date.now()));
}

/** Changes the log; a reader at its end stays at its end, any other where they are. */
function keepingPlace(change) {
  change();
  if (atBottom) toBottom();
}

function toBottom() {
  page.log.scrollTop = page.log.scrollHeight;
  atBottom = true;
  showUnread(0);
}

function showUnread(count) {
  unread = count;
  page.unread.hidden = count === 0;
  page.unread.textContent = count === 1 ? "1 new message ↓" : `${count} new messages ↓`;
  showTitle();
}

let missed = 0; // lines that came while nobody looked at the page
function showTitle() {
  document.title = room ? `${missed ? `(${missed}) ` : ""}#${room} · Chat` : "Chat";
}

function showPeople() {
  page.peopleCount.textContent = people.size;
  page.names.replaceChildren(
    ...[...people].map(([name, devices]) => {
      const about = [name === me && "you", devices > 1 && `${devices} devices`].filter(Boolean).join(", ");
      return make("li", "", makeFace(name), make("span", "", make("span", "name", name), " ", make("span", "hint", about)));
    }),
  );
}

/** Takes in that somebody has so many devices here, and says so if they came or left. */
function setDevices(name, devices, grace = LEAVE_GRACE) {
  if (devices > 0) {
    const came = !people.has(name) && !leaving.has(name);
    clearTimeout(leaving.get(name));
    leaving.delete(name);
    people.set(name, devices);
    if (came && peopleKnown && name !== me) showNote(`${name} joined`);
  } else if (people.delete(name)) {
    stopTyping(name);
    const say = () => {
      leaving.delete(name);
      showNote(`${name} left`);
    };
    leaving.set(name, setTimeout(say, grace));
  }
}

function startTyping(name) {
  clearTimeout(typing.get(name));
  typing.set(name, setTimeout(() => stopTyping(name), TYPING_LIFETIME));
  showTyping();
}

function stopTyping(name) {
  clearTimeout(typing.get(name));
  typing.delete(name);
  showTyping();
}

function showTyping() {
  const names = [...typing.keys()];
  if (names.length > 3) names.splice(2, Infinity, `${typing.size - 2} others`);
  const all = names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names.at(-1)}` : names[0];
  page.typing.textContent = names.length ? `${all} ${typing.size > 1 ? "are" : "is"} typing…` : "";
}

// ------------------------------------------------------------------------------------------ the outbox

function addToOutbox(text) {
  const random = crypto.getRandomValues(new Uint8Array(16)); // randomUUID is not there on plain http
  const key = Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const item = { key, room, text, status: "waiting", element: null, error: null };
  outbox.push(item);
  showDelivery(item);
  toBottom();
  deliver();
}

function removeFromOutbox(item) {
  outbox.splice(outbox.indexOf(item), 1);
  const hadFocus = item.element?.contains(document.activeElement);
  item.element?.remove();
  if (hadFocus) page.text.focus();
}

function showDelivery(item) {
  if (item.room !== room) return;
  const label = { waiting: link?.state === "online" ? "Sending…" : "Waiting for the connection…", sending: "Sending…", sent: "Sent", failed: "Not sent" };
  const element = makeMessage(me, item.text, make("span", "progress", label[item.status]));
  element.classList.add(item.status);
  if (item.status === "failed") {
    const retry = makeButton("link", "Try again", () => {
      item.status = "waiting";
      showDelivery(item);
      page.text.focus();
      deliver();
    });
    const edit = makeButton("link", "Edit", () => {
      removeFromOutbox(item);
      page.text.value = page.text.value ? `${item.text}\n${page.text.value}` : item.text;
      page.text.focus();
      textChanged();
    });
    const remove = makeButton("link", "Remove", () => {
      removeFromOutbox(item);
      page.text.focus();
    });
    const error = make("p", "error", item.error);
    error.role = "alert";
    element.querySelector(".body").append(make("div", "failure", error, retry, edit, remove));
  }
  keepingPlace(() => {
    if (item.element?.isConnected) item.element.replaceWith(element);
    else page.outbox.append(element);
  });
  item.element = element;
}

/** A line with this key is stored: if it was ours, it is no longer on its way. */
function confirmDelivery(key) {
  const item = outbox.find((candidate) => candidate.key === key);
  if (item) removeFromOutbox(item);
}

/** Sends what waits, one after another, so that the order stays and nothing overtakes a failure. */
async function deliver() {
  if (delivering) return;
  delivering = true;
  for (;;) {
    const item = outbox.find((candidate) => candidate.room === room && candidate.status === "waiting");
    if (!item || link?.state !== "online") break;
    item.status = "sending";
    showDelivery(item);
    try {
      await link.call("say", { key: item.key, text: item.text });
      item.status = "sent"; // and gone as soon as the line itself arrives
    } catch (error) {
      item.status = error instanceof Lost ? "waiting" : "failed";
      item.error = error.message;
    }
    if (outbox.includes(item)) showDelivery(item);
  }
  delivering = false;
}

// --------------------------------------------------------------------------------- what the server says

const on = new Map([
  ["chat.people", ({ you, people: present }) => {
    me = you; // the name that the server knows is the one that the others see
    for (const name of [...people.keys()]) if (!Object.hasOwn(present, name)) setDevices(name, 0, OUTAGE_GRACE);
    for (const [name, devices] of Object.entries(present)) setDevices(name, devices);
    peopleKnown = true;
    showPeople();
  }],
  ["chat.here", ({ name, devices }) => {
    setDevices(name, devices);
    showPeople();
  }],
  ["chat.lines", ({ lines: latest, more }) => {
    const first = newestBefore === 0;
    const gap = !first && more && latest[0].id > newestBefore;
    keepingPlace(() => {
      if (gap) clearLines(); // more was said meanwhile than came: the rest is a click on "earlier" away
      showLines(latest);
    });
    if (first || gap) page.earlier.hidden = !more;
    page.empty.hidden = lines.size > 0;
    // What was said when the connection broke: had it been stored, it would have come just now.
    for (const item of outbox) if (item.status === "sent") item.status = "waiting";
    link.ready();
    deliver();
  }],
  ["chat.said", (line) => {
    stopTyping(line.name);
    // The answer to a line that was sent again and is stored further up than we have loaded.
    if (line.id < oldest && !page.earlier.hidden) return confirmDelivery(line.key);
    keepingPlace(() => {
      if (!showLine(line) || line.name === me) return;
      if (!atBottom) showUnread(unread + 1);
      if (document.hidden) missed++;
      showTitle();
    });
  }],
  ["chat.typing", ({ name }) => {
    if (name !== me) startTyping(name);
  }],
]);

function receive(frame) {
  if (frame.type === "$error") showNote(`The server reports: ${frame.error.message}`, "error");
  on.get(frame.type)?.(frame.data);
}

function stateChanged(state, close) {
  page.chat.dataset.state = state;
  page.state.textContent = { connecting: "Connecting…", online: "Online", offline: "Offline", stopped: "Disconnected", closed: "" }[state];
  page.retry.hidden = state !== "offline";
  page.stopped.hidden = state !== "stopped";
  showCountdown();
  if (state === "connecting") newestBefore = newest;
  if (state !== "online") for (const name of typing.keys()) stopTyping(name);
  for (const item of outbox) if (item.status === "waiting") showDelivery(item);
  if (state === "stopped") {
    const why = close.reason || "The server has ended the connection.";
    if (close.code === 422) return showEntrance(`The server does not take this name. (${why})`);
    if (close.code === 403) return showEntrance(`The server does not take sign-ins from this page's address. (${why})`);
    if (close.code === 4422) return showEntrance(`The server does not take this name or this room. (${why})`);
    page.stoppedReason.textContent = `${why} (${close.code})`;
  }
}

function showCountdown() {
  const seconds = Math.max(0, Math.ceil((link?.retryAt - Date.now()) / 1000));
  page.countdown.textContent = link?.state === "offline" ? `trying again in ${seconds} s` : "";
}

// ----------------------------------------------------------------------------------- what the person does

function clearLines() {
  lines.clear();
  page.lines.replaceChildren();
  oldest = Infinity;
}

/** A room's name as it stands in links: no white space, and nothing that a URL would take apart. */
function roomName(text) {
  return text.trim().toWellFormed().replace(/[\s/\\?#%]+/g, "-").replace(/^[.-]+|[.-]+$/g, "");
}

function roomInAddress() {
  try {
    return roomName(decodeURIComponent(location.hash.slice(1)));
  } catch {
    return ""; // a stray % in it
  }
}

/** Signs in with the name that was chosen: the server answers with a cookie. Throws Lost or Refused. */
async function signIn() {
  let response;
  let detail;
  try {
    response = await fetch("sign-in", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ name: me }),
      signal: AbortSignal.timeout(ANSWER_DEADLINE),
    });
    ({ detail } = await response.json());
  } catch {
    throw new Lost("The server can't be reached.");
  }
  if (response.status >= 500) throw new Lost("The server is in trouble.");
  if (response.ok) return;
  throw new Refused({ code: response.status, message: response.status === 422 ? "It has 1 to 40 characters." : detail });
}

function enterRoom() {
  link?.close();
  clearLines();
  newest = newestBefore = missed = 0;
  for (const timer of leaving.values()) clearTimeout(timer);
  for (const known of [leaving, people, typing]) known.clear();
  peopleKnown = false;
  page.outbox.replaceChildren();
  page.entrance.hidden = true;
  page.chat.hidden = false;
  page.earlier.hidden = page.empty.hidden = true;
  page.roomTitle.textContent = `#${room}`;
  showPeople();
  showTyping();
  textChanged();

  const url = new URL(`ws/chat/${encodeURIComponent(room)}`, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  url.hash = "";
  link = new Link(url, { signIn, onFrame: receive, onState: stateChanged });
  for (const item of outbox) showDelivery(item);
  toBottom();
  link.open({ signIn: chosen });
  chosen = false;
  page.text.focus();
}

function showEntrance(error = "") {
  link?.close();
  link = null;
  room = "";
  showTitle();
  showPeopleDrawer(false);
  page.chat.hidden = true;
  page.entrance.hidden = false;
  page.entranceError.hidden = !error;
  page.entranceError.textContent = error;
  page.name.value = localStorage.getItem("name") ?? "";
  page.room.value = roomInAddress() || "lobby";
  (page.name.value && !error ? page.room : page.name).focus();
}

/** Goes where the address says, if the name is known; asks otherwise. */
function followAddress() {
  const name = localStorage.getItem("name");
  const wanted = roomInAddress();
  if (!name || !wanted) return showEntrance();
  if (wanted === room && name === me) return;
  [me, room] = [name, wanted];
  enterRoom();
}

page.entranceForm.addEventListener("submit", (event) => {
  event.preventDefault();
  const name = page.name.value.trim().toWellFormed();
  const wanted = roomName(page.room.value);
  if (!name || !wanted) return showEntrance("Both a name and a room are needed.");
  localStorage.setItem("name", name);
  chosen = true;
  if (roomInAddress() === wanted) followAddress();
  else location.hash = encodeURIComponent(wanted);
});
addEventListener("hashchange", followAddress);

function send() {
  const text = page.text.value.toWellFormed().trim();
  if (!text) return;
  page.text.value = "";
  lastTyping = 0;
  textChanged();
  addToOutbox(text);
}

function textChanged() {
  page.text.style.height = "auto";
  page.text.style.height = `${page.text.scrollHeight + 2}px`;
  const length = [...page.text.value.trim()].length;
  page.counter.textContent = length > TEXT_LIMIT - 500 ? `${length} of ${TEXT_LIMIT} characters` : "";
  page.counter.classList.toggle("error", length > TEXT_LIMIT);
}

page.composer.addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
page.text.addEventListener("keydown", (event) => {
  // While an input method composes a word, Enter picks a candidate.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  send();
});
page.text.addEventListener("input", () => {
  textChanged();
  if (!page.text.value.trim() || Date.now() - lastTyping < TYPING_INTERVAL) return;
  lastTyping = Date.now();
  link.send("typing");
});

page.log.addEventListener("scroll", () => {
  atBottom = page.log.scrollHeight - page.log.scrollTop - page.log.clientHeight < 32;
  if (atBottom) showUnread(0);
});
new ResizeObserver(() => atBottom && toBottom()).observe(page.log);
page.unread.addEventListener("click", () => {
  toBottom();
  page.text.focus();
});

page.earlier.addEventListener("click", async () => {
  page.earlier.disabled = true;
  page.earlier.textContent = "Loading…";
  try {
    const { data } = await link.call("history", { before: oldest });
    const fromBottom = page.log.scrollHeight - page.log.scrollTop;
    showLines(data.lines);
    page.earlier.hidden = !data.more;
    page.log.scrollTop = page.log.scrollHeight - fromBottom;
    page.earlier.textContent = "Load earlier messages";
    if (!data.more) page.log.focus();
  } catch (error) {
    page.earlier.textContent = `${error.message} Try again`;
  }
  page.earlier.disabled = false;
});

page.retry.addEventListener("click", () => link.retryNow());
page.comeBack.addEventListener("click", () => link.retryNow());
addEventListener("online", () => link?.state === "offline" && link.retryNow());
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  missed = 0;
  showTitle();
  if (link?.state === "offline") link.retryNow();
});
setInterval(showCountdown, 250);
addEventListener("beforeunload", (event) => {
  if (outbox.length) event.preventDefault();
});

function showPeopleDrawer(open) {
  page.chat.dataset.people = open ? "open" : "closed";
  page.openPeople.ariaExpanded = String(open);
  page.conversation.inert = open;
  if (open) page.closePeople.focus();
  else if (page.people.contains(document.activeElement)) page.openPeople.focus();
}
page.openPeople.addEventListener("click", () => showPeopleDrawer(true));
page.closePeople.addEventListener("click", () => showPeopleDrawer(false));
page.backdrop.addEventListener("click", () => showPeopleDrawer(false));
narrow.addEventListener("change", () => showPeopleDrawer(false));
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && page.chat.dataset.people === "open") showPeopleDrawer(false);
});

page.copy.addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(location.href);
    page.copy.textContent = "Link copied";
  } catch {
    prompt("Copy this link:", location.href); // there is no clipboard on plain http
  }
});
page.leave.addEventListener("click", () => showEntrance());

followAddress();
