// The page of the notifications. From top to bottom: signing in, what the page knows, the connection, what the person
// does.

import { Link, Lost, Refused, socketURL } from "../shared/link.js";
import { make, makeButton, page, Status } from "../shared/page.js";

const MOST = 100; // notifications that are shown; the server sends as many
const DEADLINE = 10_000; // milliseconds
const SIGN_IN_AGAIN = [4401, 4519]; // close codes: nobody knows this page (any more), or its time is over

const time = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

// ------------------------------------------------------------------------------------------ signing in

let me = localStorage.getItem("notifications name") ?? "";
let cookie = "unknown"; // "none", "unknown" (there may be one), "new" (nobody has accepted it yet), "good"

/** Sends a POST with JSON. Throws Lost or Refused. */
async function post(path, body) {
  let response;
  let detail;
  try {
    response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(DEADLINE),
    });
    if (!response.ok) ({ detail } = await response.json());
  } catch {
    throw new Lost("The server can't be reached.");
  }
  if (response.status >= 500) throw new Lost("The server is in trouble.");
  if (!response.ok) throw new Refused({ code: response.status, message: detail?.[0]?.msg ?? detail });
}

/** Signs in with the name that was chosen: the server answers with a cookie. */
async function signIn() {
  await post("sign-in", { name: me });
  cookie = "new";
}

/** The same as `post`, for who has signed in; the cookie may be out of date, or somebody else's of this browser. */
async function postAsMe(path, body) {
  if (cookie !== "good") await signIn();
  try {
    await post(path, body);
  } catch (error) {
    if (error.code !== 401) throw error;
    await signIn();
    await post(path, body);
  }
}

// ----------------------------------------------------------------------------------- what the page knows

const known = new Map(); // id → {element, unread, ...} of each notification
const read = new Set(); // ids that were read; a device may hear of that before it hears of the notification

function take(notification) {
  if (notification.read) read.add(notification.id);
  if (!known.has(notification.id)) {
    const text = make("p", "text", notification.text);
    const from = make("p", "from", `${notification.sender || "The server"} · ${time.format(notification.at)}`);
    const button = makeButton("quiet small", "Mark as read", () => markRead([notification.id]));
    known.set(notification.id, { element: make("li", "", text, from, button), button });
  }
}

function forget() {
  known.clear();
  read.clear();
  show();
}

function unread() {
  return [...known.keys()].filter((id) => !read.has(id));
}

/** Shows what is known, newest first. */
function show() {
  const ids = [...known.keys()].sort((one, other) => other - one);
  for (const id of ids.splice(MOST)) known.delete(id);
  const focused = document.activeElement;
  for (const [place, id] of ids.entries()) {
    const { element, button } = known.get(id);
    element.className = read.has(id) ? "" : "unread";
    button.hidden = read.has(id);
    if (page.notifications.children[place] !== element) {
      page.notifications.insertBefore(element, page.notifications.children[place] ?? null);
    }
  }
  while (page.notifications.children.length > ids.length) page.notifications.lastElementChild.remove();
  if (focused !== document.activeElement || focused.hidden) {
    (page.notifications.querySelector("button:not([hidden])") ?? page.readAll).focus();
  }
  const count = unread().length;
  page.unread.textContent = count ? `${count} unread` : "";
  page.readAll.disabled = count === 0;
  page.empty.hidden = ids.length > 0;
  document.title = count ? `(${count}) Notifications` : "Notifications";
}

// -------------------------------------------------------------------------------------- the connection

const status = new Status();

const link = new Link(
  async () => {
    if (cookie === "none") await signIn();
    return socketURL("ws/device");
  },
  {
    onFrame({ type, data }) {
      if (type === "inbox") takeInbox(data);
      else if (type === "notification") take(data);
      else if (type === "were_read") data.ids.forEach((id) => read.add(id));
      else if (type === "$gap") load();
      show();
    },
    onState(state, close) {
      if (SIGN_IN_AGAIN.includes(close?.code) && cookie !== "new") return signInAgain();
      if (state === "stopped") cookie = "none"; // the next attempt begins with that
      status.show(state, close);
      if (state === "stopped" && !close.reason) page.stoppedReason.textContent = `The server has ended the connection. (${close.code})`;
    },
  },
);

function signInAgain() {
  cookie = "none";
  link.open();
}

function takeInbox(inbox) {
  // The cookie is that of whoever signed in last in this browser.
  if (inbox.you !== me && cookie !== "new") return signInAgain();
  if (inbox.you !== page.you.textContent) forget();
  me = page.you.textContent = inbox.you;
  cookie = "good";
  inbox.notifications.forEach(take);
  page.problem.hidden = true;
  if (link.state !== "online") link.ready();
}

/** Asks for all anew: something may be missing. What is known already is shown once. */
async function load() {
  try {
    takeInbox((await link.call("load")).data);
    show();
  } catch (error) {
    if (error instanceof Refused) setTimeout(load, 2000 * Math.random());
    // if the connection was lost, the next one begins with the inbox
  }
}

async function markRead(ids) {
  page.problem.hidden = true;
  try {
    await link.call("mark_read", { ids });
    ids.forEach((id) => read.add(id));
    show();
  } catch (error) {
    page.problem.textContent = `Not marked as read: ${error.message}`;
    page.problem.hidden = false;
  }
}

// ------------------------------------------------------------------------------------ what the person does

function enter() {
  page.entrance.hidden = true;
  page.app.hidden = false;
  page.you.textContent = me;
  page.to.value ||= me;
  link.open();
}

function showEntrance() {
  link.close();
  forget();
  page.app.hidden = true;
  page.entrance.hidden = false;
  page.name.value = me;
  page.name.focus();
}

/** Returns what makes it harmless to send the same thing again. */
function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Posts a form, says what comes of it, and keeps its key until it is known to have arrived. */
async function submit(form, path, body, outcome, done) {
  form.dataset.key ||= newKey();
  outcome.className = "hint";
  outcome.textContent = "Sending…";
  try {
    await postAsMe(path, { ...body, key: form.dataset.key });
    delete form.dataset.key;
    outcome.textContent = done;
    return true;
  } catch (error) {
    if (error instanceof Refused) delete form.dataset.key;
    outcome.className = "error";
    outcome.textContent = `${error.message} Try again.`;
    return false;
  }
}

page.entranceForm.addEventListener("submit", (event) => {
  event.preventDefault();
  const name = page.name.value.toWellFormed().trim();
  if (!name) return;
  if (name !== me) page.to.value = name;
  me = name;
  localStorage.setItem("notifications name", me);
  cookie = "none";
  enter();
});
page.leave.addEventListener("click", showEntrance);
page.readAll.addEventListener("click", () => markRead(unread()));

page.letter.addEventListener("submit", async (event) => {
  event.preventDefault();
  const [to, text] = [page.to.value.toWellFormed().trim(), page.text.value.toWellFormed().trim()];
  if (!to || !text) return;
  if (await submit(page.letter, "notifications", { to, text }, page.letterOutcome, `Sent to ${to}.`)) page.text.value = "";
});
for (const input of [page.to, page.text]) {
  input.addEventListener("input", () => delete page.letter.dataset.key); // another letter than the one that failed
}

page.export.addEventListener("click", () => {
  submit(page.export, "exports", {}, page.exportOutcome, "Ordered. You may leave.");
});

status.watch(link);
if (me) enter();
else showEntrance();
