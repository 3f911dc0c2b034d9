// The page of the board. From top to bottom: HTTP, the connection with its credential, what is shown, what the
// server says, what the person does. Tokens and tickets pass through variables; nothing of them is stored.

const SOCKET = "ws/board";
const RETRY_BASE = 500; // milliseconds
const RETRY_CAP = 20_000;
const STEADY = 5_000; // a connection that held for so long makes the next wait short again
const ANSWER_DEADLINE = 10_000;
const RENEW_AT = [0.5, 0.7]; // of a token's life: somewhere between, so that many pages do not renew at once

// ------------------------------------------------------------------------------------------------- HTTP

/** The server could not be reached, or is in trouble: it is worth trying again. */
class Unreachable extends Error {}

/** The server said no; the same request would get the same answer. */
class Refused extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** Sends a POST with JSON, and returns the JSON of the answer. Throws Unreachable or Refused. */
async function post(path, body) {
  let response;
  let answer = null;
  try {
    response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body ?? {}),
      signal: AbortSignal.timeout(ANSWER_DEADLINE),
    });
    if (response.status !== 204) answer = await response.json();
  } catch {
    throw new Unreachable("The server can't be reached.");
  }
  if (response.ok) return answer;
  if (response.status >= 500) throw new Unreachable("The server is in trouble.");
  const detail = answer.detail;
  throw new Refused(response.status, typeof detail === "string" ? detail : "The server does not take this.");
}

// --------------------------------------------------------------------------------------- the connection

/** Whether a client that was closed with this code may come back without changing anything. */
function mayComeBack(code) {
  return ![1000, 1002, 1003, 1007, 1008, 1009].includes(code) && !(code >= 4400 && code <= 4499);
}

/**
 * A connection whose credential is renewed before it expires, and which is made again when it is lost.
 *
 * Its states: "connecting", "online", "offline" (tries again at `retryAt`), "stopped" (the server does not want this
 * page back unchanged), "closed" (by us). `flow` is "cookie" or "ticket"; `renews` says whether it sends `$auth`.
 */
class Connection extends EventTarget {
  state = "closed";
  flow = "cookie";
  renews = true;
  retryAt = 0;
  expiresAt = 0; // by the browser's clock
  lifetime = 0; // milliseconds that the token had when it came
  #freshUntil = 0; // when the token expires that was fetched last
  #socket = null;
  #retryTimer = 0;
  #renewTimer = 0;
  #attempt = 0; // waits so far; 0 when a connection has held
  #onlineSince = 0;
  #calls = new Map();
  #nextId = 1;
  #generation = 0; // raised when what is under way is given up

  async open() {
    this.#drop();
    const generation = this.#generation;
    const current = () => generation === this.#generation;
    this.#change("connecting");
    try {
      await this.#fetchToken(); // the access cookie comes with it
      const url = new URL(SOCKET, location.href);
      url.protocol = url.protocol.replace("http", "ws");
      url.hash = "";
      if (current() && this.flow === "ticket") url.searchParams.set("ticket", (await post("api/ticket")).ticket);
      if (current()) this.#connect(url);
    } catch (error) {
      if (!current()) return;
      if (error instanceof Refused) this.#end({ code: error.code, reason: error.message, byHTTP: true });
      else this.#retryLater({ reason: error.message });
    }
  }

  close() {
    this.#drop();
    this.#change("closed");
  }

  retryNow() {
    if (this.state === "offline" || this.state === "stopped") this.open();
  }

  /** Sends a message and returns the frame that answers it. Throws Unreachable or Refused. */
  call(type, data) {
    return new Promise((resolve, reject) => {
      if (this.state !== "online") throw new Unreachable("There is no connection.");
      const id = this.#nextId++;
      const timer = setTimeout(() => this.#lose(1006, "no answer"), ANSWER_DEADLINE);
      this.#calls.set(id, { resolve, reject, timer });
      this.#socket.send(JSON.stringify({ type, id, data }));
    });
  }

  setRenewal(renews) {
    this.renews = renews;
    this.#renewLater();
  }

  #connect(url) {
    const socket = (this.#socket = new WebSocket(url));
    socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    socket.onclose = ({ code, reason }) => this.#lose(code, reason);
    this.#retryTimer = setTimeout(() => this.#lose(1006, "no answer"), ANSWER_DEADLINE);
  }

  /** Fetches a fresh token, and returns it; when it expires is noted. */
  async #fetchToken() {
    const asked = Date.now();
    const { token, expires_in: seconds } = await post("api/token");
    this.lifetime = seconds * 1000;
    this.#freshUntil = asked + this.lifetime;
    return token;
  }

  #renewLater(wait = null) {
    clearTimeout(this.#renewTimer);
    if (this.state !== "online" || !this.renews) return;
    const [from, to] = RENEW_AT;
    const at = this.expiresAt - this.lifetime * (1 - from - Math.random() * (to - from));
    this.#renewTimer = setTimeout(() => this.#renew(), wait ?? Math.max(0, at - Date.now()));
  }

  /** Puts a fresh token in the place of the one that is about to expire, on the connection as it is. */
  async #renew() {
    const generation = this.#generation;
    try {
      const token = await this.#fetchToken();
      if (generation !== this.#generation) return;
      await this.call("$auth", { token });
      this.expiresAt = this.#freshUntil;
      this.#tell("renewed", {});
      this.#renewLater();
    } catch (error) {
      if (generation !== this.#generation) return;
      // Until the old token expires there is time to try again; after that the server closes with 4519.
      if (error instanceof Unreachable) this.#renewLater(Math.random() * Math.min(this.lifetime / 4, 5_000));
      else if (error.code === 401 || error.code === 403) this.#end({ code: error.code, reason: error.message, byHTTP: true });
      else this.open();
    }
  }

  #receive(frame) {
    const call = this.#calls.get(frame.id);
    if (call) {
      this.#calls.delete(frame.id);
      clearTimeout(call.timer);
      if (frame.type === "$error") call.reject(new Refused(frame.error.code, frame.error.message));
      else call.resolve(frame);
      return;
    }
    if (frame.type === "welcome") {
      clearTimeout(this.#retryTimer);
      this.#onlineSince = Date.now();
      this.expiresAt = this.#freshUntil;
      this.#change("online", frame.data);
      this.#renewLater();
    }
    this.#tell("message", frame);
  }

  #lose(code, reason) {
    const held = this.state === "online" && Date.now() - this.#onlineSince > STEADY;
    if (held) this.#attempt = 0;
    const close = { code, reason };
    if (!mayComeBack(code)) this.#end(close);
    else if (code === 4519 && this.state === "online") {
      this.#tell("expired", close);
      this.open(); // a fresh token is all it takes
    } else this.#retryLater(close);
  }

  #retryLater(close) {
    this.#drop();
    // Full jitter: pages that were lost together do not come back together.
    const delay = Math.random() * Math.min(RETRY_CAP, RETRY_BASE * 2 ** this.#attempt++);
    this.retryAt = Date.now() + delay;
    this.#retryTimer = setTimeout(() => this.open(), delay);
    this.#change("offline", close);
  }

  #end(close) {
    this.#drop();
    this.#change("stopped", close);
  }

  #drop() {
    this.#generation++;
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#renewTimer);
    if (this.#socket) {
      this.#socket.onmessage = this.#socket.onclose = null;
      this.#socket.close();
      this.#socket = null;
    }
    for (const { reject, timer } of this.#calls.values()) {
      clearTimeout(timer);
      reject(new Unreachable("The connection was lost."));
    }
    this.#calls.clear();
  }

  #change(state, detail = {}) {
    this.state = state;
    this.#tell("state", { state, ...detail });
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

// ---------------------------------------------------------------------------------------- what is shown

const page = Object.fromEntries(
  [...document.querySelectorAll("[id]")].map((element) => [
    element.id.replace(/-(.)/g, (_, letter) => letter.toUpperCase()),
    element,
  ]),
);
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const MOST_EVENTS = 30;

const connection = new Connection();
let me = "";

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

function showEvent(text) {
  const now = Date.now();
  const time = make("time", "", clock.format(now));
  time.dateTime = new Date(now).toISOString();
  page.events.prepend(make("li", "", time, make("span", "", text)));
  while (page.events.children.length > MOST_EVENTS) page.events.lastElementChild.remove();
}

function showProblem(error = null) {
  page.problem.hidden = error === null;
  if (error === null) return;
  page.problemCode.textContent = error.code ? `${error.code}:` : "";
  page.problemText.textContent = error.message;
}

function showEntrance(error = "") {
  connection.close();
  me = "";
  page.events.replaceChildren();
  page.notices.replaceChildren();
  page.accounts.replaceChildren();
  showProblem();
  page.app.hidden = true;
  page.entrance.hidden = false;
  page.entranceError.textContent = error;
  page.entranceError.hidden = !error;
  page.password.value = "";
  page.name.focus();
}

function showBoard() {
  page.entrance.hidden = true;
  page.app.hidden = false;
  page.user.textContent = me;
  connection.open();
}

function showNotices(notices) {
  const focused = document.activeElement?.closest("#notices li")?.dataset.id;
  page.notices.replaceChildren(
    ...notices.map(({ id, author, text, at, pinned }) => {
      const time = make("time", "", moment.format(at));
      time.dateTime = new Date(at).toISOString();
      const pin = makeButton("small", pinned ? "Unpin" : "Pin", () => attempt("pin", { notice: id, pinned: !pinned }));
      const about = make("div", "about", make("span", "", author === me ? "you" : author), time, pin);
      const item = make("li", pinned ? "pinned" : "", make("p", "text", text), about);
      item.dataset.id = id;
      return item;
    }),
  );
  page.notices.querySelector(`[data-id="${focused}"] button`)?.focus();
  page.empty.hidden = notices.length > 0;
}

function showAccounts({ accounts }) {
  page.accounts.replaceChildren(
    ...accounts.map(({ name, scopes, disabled }) => {
      const about = `${scopes.map((scope) => scope.replace("notes:", "")).join(", ")}${disabled ? " · disabled" : ""}`;
      const item = make("li", "", make("div", "", name, make("div", "hint", about)));
      item.dataset.name = name;
      if (name !== me) item.append(makeButton("small", disabled ? "Enable" : "Disable", () => setDisabled(name, !disabled)));
      return item;
    }),
  );
}

const STATES = { connecting: "Connecting…", online: "Online", offline: "Offline", stopped: "Disconnected", closed: "" };

function showTime() {
  const left = Math.max(0, connection.expiresAt - Date.now());
  const online = connection.state === "online";
  page.seconds.textContent = online ? (left > 0 ? `${Math.ceil(left / 1000)} s left` : "expired") : "–";
  page.lifetime.value = online && connection.lifetime ? Math.min(1, left / connection.lifetime) : 0;
  const wait = Math.max(0, Math.ceil((connection.retryAt - Date.now()) / 1000));
  page.countdown.textContent = connection.state === "offline" ? `Trying again in ${wait} s` : "";
}

// --------------------------------------------------------------------------------- what the server says

connection.addEventListener("state", ({ detail: { state, code, reason, byHTTP } }) => {
  page.app.dataset.state = state;
  page.state.textContent = STATES[state];
  page.retry.hidden = state !== "offline";
  page.stopped.hidden = true;
  if (state !== "online") page.credential.textContent = page.connectionId.textContent = "–";
  showTime();
  if (state === "offline") showEvent(`Lost: ${reason || "no reason given"}${code ? ` (${code})` : ""}`);
  if (state !== "stopped") return;
  const why = reason || "The server has ended the connection";
  // Not let in, or not any more: who one is has to be said again.
  if ([401, 403, 4401, 4403].includes(code)) {
    showEntrance(byHTTP && code === 401 ? "You are signed out." : `${why}.`);
  } else {
    showEvent(`Closed: ${why} (${code})`);
    page.stopped.hidden = false;
    page.stoppedReason.textContent = `${why} (${code})`;
  }
});

connection.addEventListener("expired", ({ detail: { code, reason } }) => showEvent(`Closed: ${reason} (${code})`));
connection.addEventListener("renewed", () => {
  showEvent("Token renewed on the open connection");
  showTime();
});

const on = {
  welcome({ connection: id, name, scopes, credential }) {
    me = name;
    page.user.textContent = name;
    page.connectionId.textContent = id;
    page.credential.textContent = credential;
    page.scopes.textContent = scopes.join(", ");
    showEvent(`Connected with a ${credential}`);
    const administers = scopes.includes("notes:admin");
    page.accountsCard.hidden = !administers;
    if (administers) ask("accounts", {}).then((answer) => answer && showAccounts(answer.data));
  },
  board({ notices }) {
    showNotices(notices);
  },
  $error(_, error) {
    showProblem(error);
  },
};

connection.addEventListener("message", ({ detail: { type, data, error } }) => on[type]?.(data, error));

// ----------------------------------------------------------------------------------- what the person does

/** Sends a message and returns its answer; shows what went wrong and returns null. */
async function ask(type, data) {
  try {
    const answer = await connection.call(type, data);
    showProblem();
    return answer;
  } catch (error) {
    showProblem(error);
    return null;
  }
}

async function attempt(type, data) {
  return (await ask(type, data)) !== null;
}

async function setDisabled(name, disabled) {
  const answer = await ask("disable", { name, disabled });
  if (!answer) return;
  showAccounts(answer.data);
  page.accounts.querySelector(`[data-name="${CSS.escape(name)}"] button`)?.focus();
}

page.signIn.addEventListener("submit", async (event) => {
  event.preventDefault();
  page.signInButton.disabled = true;
  page.entranceError.hidden = true;
  try {
    const { name } = await post("api/sign-in", { name: page.name.value, password: page.password.value });
    me = name;
    page.password.value = "";
    showBoard();
    page.text.focus();
  } catch (error) {
    page.entranceError.textContent = `${error.message.replace(/\.$/, "")}.`;
    page.entranceError.hidden = false;
    page.password.select();
    page.password.focus();
  } finally {
    page.signInButton.disabled = false;
  }
});

async function signOut(everywhere) {
  try {
    await post(everywhere ? "api/sign-out?everywhere=true" : "api/sign-out");
    showEntrance("You are signed out.");
  } catch (error) {
    showProblem(error); // still signed in: saying otherwise would be a lie
  }
}

page.signOut.addEventListener("click", () => signOut(false));
page.signOutEverywhere.addEventListener("click", () => signOut(true));
page.dismiss.addEventListener("click", () => showProblem());
page.retry.addEventListener("click", () => connection.retryNow());
page.comeBack.addEventListener("click", () => connection.retryNow());
page.clear.addEventListener("click", () => attempt("clear", {}));
page.composer.addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = page.text.value.toWellFormed();
  if (await attempt("post", { text })) page.text.value = "";
});

for (const radio of document.querySelectorAll("[name=flow]")) {
  radio.addEventListener("change", () => {
    connection.flow = radio.value;
    connection.open();
  });
}
page.renew.addEventListener("change", () => connection.setRenewal(page.renew.checked));
addEventListener("online", () => connection.state === "offline" && connection.retryNow());
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && connection.state === "offline") connection.retryNow();
});
setInterval(showTime, 250);

async function showDemoAccounts() {
  const accounts = await (await fetch("api/demo-accounts")).json();
  page.demoAccounts.replaceChildren(
    ...accounts.map(({ name, password, scopes }) => {
      const about = make("span", "hint", `${password} · ${scopes.map((scope) => scope.replace("notes:", "")).join(", ")}`);
      const use = makeButton("small", "Use", () => {
        page.name.value = name;
        page.password.value = password;
        page.signInButton.focus();
      });
      use.ariaLabel = `Use ${name}`;
      return make("li", "", make("div", "about", make("strong", "", name), about), use);
    }),
  );
}

/** Goes on where one is signed in; asks otherwise. */
async function begin() {
  page.renew.checked = true; // browsers restore forms when a page is loaded again
  document.querySelector("[name=flow][value=cookie]").checked = true;
  showDemoAccounts();
  try {
    me = (await post("api/token")).name;
    showBoard();
  } catch (error) {
    showEntrance(error instanceof Refused && error.code === 401 ? "" : `${error.message.replace(/\.$/, "")}.`);
  }
}

begin();
