// The page of the streams. From top to bottom: what a text is and how it is shown, the two connections, what the
// person does.

import { Link, Lost, socketURL } from "../shared/link.js";
import { make, makeButton, page, Status } from "../shared/page.js";

const PROMPT_LIMIT = 200; // characters; the server refuses more
const PARAGRAPHS = 200; // of one text; of a longer one the page keeps the end
const PLAIN_WORDS = new Map([
  ["string_too_long", `This is too long: a prompt has room for ${PROMPT_LIMIT} characters.`],
  ["string_too_short", "There is nothing in this prompt."],
]);
const ABOUT_HOLD = Link.canHold
  ? "What is not read fills the buffers on the way; then the generators wait. After 10 s of that the server closes (4508)."
  : "This browser reads whatever comes (it has no WebSocketStream).";
const GIVEN_UP = "Nothing was read for too long, and the server closed (4508). The texts went on where they had been.";

const count = new Intl.NumberFormat();
const seeds = new Uint32Array(1);

// ------------------------------------------------------------------------------------------- the texts

/**
 * A text that the server writes. It outlives connections: what it has of its words tells where to go on.
 *
 * Its states: "lost" (waits for the connection), "waiting" (asked for; others are written first), "writing",
 * "stopping", "stopped" (by the person), "done", "failed".
 */
class Text {
  state = "lost";
  words = 0;
  #order; // what the server is asked for
  #cancel = null; // an AbortController while the server is at it
  #unseen = ""; // came since the page was drawn
  #error = "";

  constructor(order) {
    this.#order = { ...order, seed: crypto.getRandomValues(seeds)[0] };
    this.title = make("h3", "", order.prompt);
    this.body = make("div", "body", make("p"));
    this.body.tabIndex = 0;
    this.body.role = "region";
    this.body.ariaLabel = `Text about ${order.prompt}`;
    this.stateLine = make("p", "state");
    this.remove = makeButton("quiet remove", "✕", () => removeText(this));
    this.remove.ariaLabel = `Remove ${order.prompt}`;
    this.action = makeButton("small", "", () => (this.runs ? this.stop() : this.write()));
    const [head, foot] = [make("div", "head", this.title, this.remove), make("div", "foot", this.stateLine, this.action)];
    this.element = make("li", "text card", head, this.body, foot);
    this.#show();
  }

  get runs() {
    return ["lost", "waiting", "writing", "stopping"].includes(this.state);
  }

  /** Asks for the words that are not there yet, and takes them until they end. */
  async write() {
    this.#change("lost");
    if (writer.state !== "online") return; // it is asked again when the connection is there
    this.#cancel = new AbortController();
    this.#change("waiting");
    try {
      const order = { ...this.#order, pace: chosenPace(), after: this.words };
      await writer.call("write", order, { onItem: (word) => this.#take(word), signal: this.#cancel.signal });
      this.#change("done");
    } catch (error) {
      if (error instanceof Lost) this.#change(this.state === "stopping" ? "stopped" : "lost");
      else if (error.code === "cancelled") this.#change("stopped");
      else {
        this.#error = PLAIN_WORDS.get(error.problem) ?? error.message;
        this.#change("failed");
      }
    }
    this.#cancel = null;
  }

  stop() {
    if (!this.#cancel) return this.#change("stopped");
    this.#change("stopping");
    this.#cancel.abort();
  }

  #take(word) {
    this.words++;
    shown++;
    this.#unseen += word;
    if (this.state === "waiting") this.#change("writing");
    drawSoon(this);
  }

  /** Puts what came since the last time onto the page: once a frame, however many words that are. */
  draw() {
    const atEnd = this.body.scrollHeight - this.body.scrollTop - this.body.clientHeight < 32;
    const [first, ...paragraphs] = this.#unseen.split("\n\n");
    this.#unseen = "";
    this.body.lastElementChild.append(first);
    for (const paragraph of paragraphs) this.body.append(make("p", "", paragraph));
    while (this.body.childElementCount > PARAGRAPHS) this.body.firstElementChild.remove();
    if (atEnd) this.body.scrollTop = this.body.scrollHeight;
    this.#show();
  }

  #change(state) {
    this.state = state;
    this.#show();
  }

  #show() {
    const words = `${count.format(this.words)} ${this.words === 1 ? "word" : "words"}`;
    const sofar = this.words ? ` · ${words}` : "";
    this.element.dataset.state = this.state;
    this.body.ariaBusy = String(this.state === "writing");
    const line = {
      lost: `Waits for the connection${sofar}`,
      waiting: `Waits for its turn${sofar}`,
      writing: `Writing${sofar}`,
      stopping: `Stopping…${sofar}`,
      stopped: `Stopped${sofar}`,
      done: `Done${sofar}`,
      failed: this.#error,
    }[this.state];
    if (this.stateLine.textContent !== line) this.stateLine.textContent = line;
    this.stateLine.role = this.state === "failed" ? "alert" : null;
    this.action.textContent = { stopped: "Go on", failed: "Try again" }[this.state] ?? "Stop";
    this.action.ariaLabel = `${this.action.textContent}: ${this.#order.prompt}`;
    this.action.hidden = this.state === "done";
    this.action.disabled = this.state === "stopping";
    this.remove.hidden = this.runs;
  }
}

const texts = []; // the newest first
let shown = 0; // words, of all texts that ever were here
const undrawn = new Set();

/** Milliseconds until the next time: where drawing takes long, most of the time is left for what the person does. */
let pause = 0;

function drawSoon(text) {
  if (undrawn.size === 0) setTimeout(requestAnimationFrame, pause, draw);
  undrawn.add(text);
}

function draw() {
  const began = performance.now();
  for (const text of undrawn) text.draw();
  undrawn.clear();
  page.shown.textContent = count.format(shown);
  pause = Math.min(500, 4 * (performance.now() - began));
}

/** Returns words a second, null for as many as can be taken. It may change while a text is interrupted. */
function chosenPace() {
  return page.pace.value ? Number(page.pace.value) : null;
}

function addText(prompt) {
  const text = new Text({ prompt, words: Number(page.words.value) });
  texts.unshift(text);
  page.texts.prepend(text.element);
  page.empty.hidden = true;
  text.write();
}

function removeText(text) {
  texts.splice(texts.indexOf(text), 1);
  const next = text.element.nextElementSibling ?? text.element.previousElementSibling;
  text.element.remove();
  page.empty.hidden = texts.length > 0;
  (next?.querySelector("button:not([hidden])") ?? page.prompt).focus();
}

// ------------------------------------------------------------------------------------- the connections

const status = new Status();
let held = false;
let givenUp = false; // because nothing was read, the last time that reading was stopped

const writer = new Link(socketURL("ws/write"), {
  pulls: true,
  onFrame({ type }) {
    if (type !== "stream.ready") return;
    writer.ready();
    for (const text of texts.toReversed()) if (text.state === "lost") text.write();
  },
  onState(state, close) {
    held = false;
    givenUp ||= close?.code === 4508;
    status.show(state, close);
    showHold();
    page.connect.textContent = state === "closed" || state === "stopped" ? "Connect" : "Disconnect";
  },
});

// A connection of its own, so that it tells of the generators when the other one is gone, or is not read.
const watch = new Link(socketURL("ws/watch"), {
  onFrame({ type, data }) {
    if (type !== "stream.generators") return;
    if (watch.state !== "online") watch.ready();
    page.running.textContent = count.format(data.running);
    page.finished.textContent = count.format(data.finished);
    page.cutShort.textContent = count.format(data.cut_short);
    page.yielded.textContent = count.format(data.words);
  },
  onState(state) {
    page.generators.classList.toggle("stale", state !== "online");
  },
});

function showHold() {
  page.hold.hidden = !Link.canHold;
  page.hold.disabled = writer.state !== "online";
  page.hold.ariaPressed = String(held);
  page.hold.textContent = held ? "Read on" : "Stop reading";
  if (held) page.state.textContent = "Online, not reading";
  else if (writer.state === "online") page.state.textContent = "Online";
  page.aboutHold.textContent = givenUp ? GIVEN_UP : ABOUT_HOLD;
}

// ----------------------------------------------------------------------------------- what the person does

page.composer.addEventListener("submit", (event) => {
  event.preventDefault();
  const prompt = page.prompt.value.toWellFormed().trim();
  if (prompt) addText(prompt);
  page.prompt.select();
});
page.prompts.addEventListener("click", ({ target }) => {
  if (target instanceof HTMLButtonElement) addText(target.textContent);
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing) texts.find(({ runs }) => runs)?.stop();
});

page.hold.addEventListener("click", () => {
  held = !held;
  givenUp = false;
  writer.hold(held);
  showHold();
});
page.connect.addEventListener("click", () => {
  if (writer.state === "closed" || writer.state === "stopped") writer.open();
  else writer.close();
});

status.watch(writer);
writer.open();
watch.open();
addEventListener("online", () => watch.retryNow());
