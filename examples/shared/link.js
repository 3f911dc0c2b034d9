// The link from a page to its server: it is made again when it is lost, and pairs calls with their answers.

const RETRY_BASE = 500; // milliseconds
const RETRY_CAP = 20_000;
const STEADY = 5_000; // a connection that held for so long makes the next wait short again
const ANSWER_DEADLINE = 10_000;
const TURN = 8; // milliseconds of reading; then the page is drawn, and listens to the person

/** Why a call got no answer, or there is no connection: it was lost, or the server can't be reached. */
export class Lost extends Error {}

/** The server's answer to a call that failed. */
export class Refused extends Error {
  constructor({ code, message, details }) {
    super(details?.[0]?.msg ?? message);
    this.code = code;
    this.problem = details?.[0]?.type;
  }
}

/** Whether a client that was closed with this code may come back without changing anything. */
function mayComeBack(code) {
  return ![1000, 1002, 1003, 1007, 1008, 1009].includes(code) && !(code >= 4400 && code <= 4499);
}

/** The URL of a path beside the page's own. */
export function socketURL(path) {
  const url = new URL(path, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  url.hash = "";
  return url;
}

/** A WebSocket that pushes what it reads as soon as it comes, as every browser has it. */
class Pushed {
  #socket;

  constructor(url, { onText, onClose }) {
    this.#socket = new WebSocket(url);
    this.#socket.onmessage = ({ data }) => onText(data);
    this.#socket.onclose = ({ code, reason }) => onClose(code, reason);
  }

  send(text) {
    this.#socket.send(text);
  }

  close() {
    this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
  }
}

/** A WebSocket that is read when somebody asks for more; until then TCP holds the server back (WebSocketStream). */
class Pulled {
  #stream;
  #writer = null;
  #held = null; // {promise, resolve} while nothing is read
  #dropped = false;

  constructor(url, handlers) {
    this.#stream = new WebSocketStream(url);
    this.#run(handlers);
  }

  async #run({ onText, onClose }) {
    let close;
    try {
      const { readable, writable } = await this.#stream.opened;
      this.#writer = writable.getWriter();
      this.#writer.closed.catch(() => {}); // told by `closed` of the stream, below
      const reader = readable.getReader();
      let turn = performance.now();
      for (;;) {
        if (performance.now() - turn > TURN) {
          await new Promise((resolve) => setTimeout(resolve)); // what is there already would be read without a pause
          turn = performance.now();
        }
        const { value, done } = await reader.read();
        await this.#held?.promise;
        if (done || this.#dropped) break;
        onText(value);
      }
      close = await this.#stream.closed;
    } catch (error) {
      close = error;
    }
    if (!this.#dropped) onClose(close.closeCode ?? 1006, close.reason ?? "");
  }

  send(text) {
    this.#writer.write(text).catch(() => {});
  }

  hold(held) {
    this.#held?.resolve();
    this.#held = held ? Promise.withResolvers() : null;
  }

  close() {
    this.#dropped = true;
    this.#held?.resolve();
    this.#stream.close();
    this.#stream.opened.catch(() => {});
    this.#stream.closed.catch(() => {});
  }
}

/**
 * A connection that is made again when it is lost, and calls that are paired with their answers.
 *
 * Its states: "connecting", "online" (once `ready` was called), "offline" (tries again at `retryAt`),
 * "stopped" (the server does not want this client back unchanged), "closed" (by us).
 */
export class Link {
  /** Whether reading can be held in this browser. */
  static canHold = "WebSocketStream" in globalThis && "withResolvers" in Promise;

  state = "closed";
  retryAt = 0;
  #url;
  #onFrame;
  #onState;
  #pulls;
  #patience;
  #socket = null;
  #opening = 0; // one more whenever what is under way is given up
  #timer = 0;
  #attempt = 0;
  #onlineSince = 0;
  #calls = new Map();
  #nextId = 1;

  /**
   * @param url where to connect, or a function that returns that anew for every attempt; it may be asynchronous, and throw
   *   Lost or Refused
   * @param onFrame takes every frame that answers no call
   * @param onState takes the new state, and with it code and reason of the close if there was one
   * @param pulls whether `hold` shall work, where the browser can do it
   * @param patience milliseconds: no answer for so long means that nobody is there
   */
  constructor(url, { onFrame, onState, pulls = false, patience = ANSWER_DEADLINE }) {
    this.#url = url instanceof Function ? url : () => url;
    this.#onFrame = onFrame;
    this.#onState = onState;
    this.#pulls = pulls && Link.canHold;
    this.#patience = patience;
  }

  open() {
    this.#drop();
    this.#timer = setTimeout(() => this.#lose(1006, ""), this.#patience);
    this.#change("connecting");
    this.#connect(this.#opening);
  }

  /** The server has said all that a newcomer needs. */
  ready() {
    clearTimeout(this.#timer);
    this.#onlineSince = Date.now();
    this.#change("online");
  }

  retryNow() {
    if (this.state === "offline" || this.state === "stopped") this.open();
  }

  close() {
    this.#drop();
    this.#change("closed");
  }

  /** Reads nothing more until it is called with `false`. */
  hold(held) {
    this.#socket.hold(held);
  }

  /** Sends a message that nobody answers; without a connection it is forgotten. */
  send(type, data) {
    if (this.state === "online") this.#socket.send(JSON.stringify({ type, data }));
  }

  /**
   * Sends a message and returns the frame that ends it. Throws Lost or Refused.
   *
   * With `onItem` it is a stream, which takes each item as it comes, and may take as long as it likes.
   * An AbortSignal cancels the call: it ends as Refused, with the code "cancelled", unless it was done before.
   */
  call(type, data, { onItem, signal } = {}) {
    return new Promise((resolve, reject) => {
      if (this.state !== "online") throw new Lost("There is no connection.");
      const id = this.#nextId++;
      const timer = onItem ? 0 : setTimeout(() => this.#lose(1006, ""), this.#patience);
      const socket = this.#socket;
      signal?.addEventListener("abort", () => {
        if (this.#calls.has(id)) socket.send(JSON.stringify({ type: "$cancel", id }));
      });
      this.#calls.set(id, { resolve, reject, timer, onItem });
      socket.send(JSON.stringify({ type, id, data }));
    });
  }

  async #connect(opening) {
    try {
      const url = await this.#url();
      if (opening !== this.#opening) return;
      this.#socket = new (this.#pulls ? Pulled : Pushed)(url, {
        onText: (text) => this.#receive(JSON.parse(text)),
        onClose: (code, reason) => this.#lose(code, reason),
      });
    } catch (error) {
      if (opening !== this.#opening) return;
      if (error instanceof Refused) this.#stop(error.code, error.message);
      else if (error instanceof Lost) this.#lose(1006, error.message);
      else throw error;
    }
  }

  #receive(frame) {
    const call = this.#calls.get(frame.id);
    if (!call) return this.#onFrame(frame);
    if (frame.type === "$item") return call.onItem(frame.data);
    this.#calls.delete(frame.id);
    clearTimeout(call.timer);
    if (frame.type === "$error") call.reject(new Refused(frame.error));
    else call.resolve(frame);
  }

  #lose(code, reason) {
    if (this.state === "online" && Date.now() - this.#onlineSince > STEADY) this.#attempt = 0;
    if (!mayComeBack(code)) return this.#stop(code, reason);
    this.#drop();
    // Full jitter: clients that were lost together do not come back together.
    const delay = Math.random() * Math.min(RETRY_CAP, RETRY_BASE * 2 ** this.#attempt++);
    this.retryAt = Date.now() + delay;
    this.#timer = setTimeout(() => this.open(), delay);
    this.#change("offline", { code, reason });
  }

  #stop(code, reason) {
    this.#drop();
    this.#change("stopped", { code, reason });
  }

  #drop() {
    this.#opening++;
    clearTimeout(this.#timer);
    this.#socket?.close();
    this.#socket = null;
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
