// The page of the cluster. From top to bottom: the processes, the clients, what is shown, the control process, what the
// person does.

import { Link, Refused, socketURL } from "../shared/link.js";
import { make, makeButton, page, Status } from "../shared/page.js";

const CLIENTS = ["Ada", "Bob", "Cleo", "Dan", "Eve", "Finn"];
const ROOMS = ["orders", "ticks"];
const EVERY = 1_000; // milliseconds between two orders, and two ticks, of a client
const PATIENCE = 4_000; // milliseconds without an answer: a node that is frozen does not close anything
const SHOW_EVERY = 250; // milliseconds
const LINES = 40; // of each list

const ENDED = new Map([[null, "not started"], [0, "stopped"], [-15, "stopped"], [-9, "killed"]]); // by exit code
const SOURCE = crypto.getRandomValues(new Uint32Array(1))[0]; // another page has clients of the same names

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium", hourCycle: "h23" });
const count = new Intl.NumberFormat();

// ----------------------------------------------------------------------------------------- the processes

/** The Redis or a node, as the control process tells of it. */
class Process {
  report = { state: "stopped" };
  #answered = false; // since it was started

  constructor(name) {
    this.name = name;
    this.title = name === "redis" ? "Redis" : name.replace("node-", "Node ");
    this.run = makeButton("small", "Start", () => act(this, this.report.state === "stopped" ? "start" : "stop"));
    this.kill = makeButton("small", "Kill", () => act(this, "kill"));
    this.freeze = makeButton("small", "Freeze", () => act(this, this.report.state === "frozen" ? "thaw" : "freeze"));
    this.stateLine = make("p", "state");
    this.stateLine.role = "status";
    this.address = make("span", "hint number");
    this.facts = make("p", "facts hint number");
    this.clients = make("ul", "clients");
    const title = make("div", "title", make("h2", "", this.title), this.stateLine, this.address);
    const buttons = make("div", "buttons", this.run, this.kill, this.freeze);
    this.element = make("section", "process card", title, this.facts, buttons);
    this.element.id = name;
    this.element.ariaLabel = this.title;
    if (name !== "redis") this.element.append(this.clients);
  }

  get ready() {
    return this.report.ready;
  }

  get starting() {
    return this.report.state === "running" && !this.#answered;
  }

  update(report) {
    const before = this.#state;
    this.report = report;
    this.#answered = report.state !== "stopped" && (this.#answered || report.answers);
    const [look, text] = this.#state;
    if (text !== before[1]) tell(`${this.title}: ${text}`);
    this.element.dataset.look = look;
    if (this.stateLine.textContent !== text) this.stateLine.textContent = text;
    this.address.textContent = report.address;
    this.facts.textContent = this.#factsText;

    const { state } = report;
    this.#label(this.run, state === "stopped" ? "Start" : "Stop", state === "stopped" || state === "running");
    this.#label(this.kill, "Kill", state !== "stopped");
    this.#label(this.freeze, state === "frozen" ? "Thaw" : "Freeze", state === "running" || state === "frozen");
  }

  get #state() {
    const { state, code, answers, ready } = this.report;
    if (state === "stopped") return ["bad", ENDED.get(code ?? null) ?? `ended (${code})`];
    if (state === "frozen") return ["bad", "frozen"];
    if (state === "stopping") return ["busy", "stopping…"];
    if (!answers) return ["busy", this.starting ? "starting…" : "does not answer"];
    return ready ? ["good", "ready"] : ["bad", "not ready: no link to Redis"];
  }

  get #factsText() {
    if (this.name === "redis") return "One server, which keeps nothing on disk. The nodes reach each other through it.";
    return factsOf(this.report.health);
  }

  #label(button, label, enabled) {
    if (button.textContent !== label) button.textContent = label;
    button.ariaLabel = `${label} ${this.title}`;
    button.disabled = !enabled || control.state !== "online";
  }
}

/** What a node says of itself. */
function factsOf(health) {
  if (!health) return "";
  const facts = [`link ${health.state} for ${duration(health.since)}`];
  if (health.heartbeat_age !== null) facts.push(`heartbeat ${duration(health.heartbeat_age)} ago`);
  if (health.lag !== null) facts.push(`lag ${(health.lag * 1000).toFixed(1)} ms`);
  facts.push(`${health.connections} connections`, `${health.gaps} gaps`);
  return facts.join(" · ");
}

function duration(seconds) {
  return seconds < 10 ? `${seconds.toFixed(1)} s` : seconds < 120 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
}

const redis = new Process("redis");
const nodes = ["node-1", "node-2", "node-3"].map((name) => new Process(name));

// ------------------------------------------------------------------------------------------- the clients

const sums = { acknowledged: 0, refused: 0, delivered: 0, recovered: 0, unrecovered: 0, gaps: 0, silent: 0 };

/**
 * Somebody in both rooms, on one of the nodes.
 *
 * It does what each client has to do by itself: come back after a loss, say how far it has read the orders, and check
 * that it misses nothing without having been told.
 */
class Client {
  lines = { orders: [], ticks: [] };
  members = new Map(); // user → Map of device
  left = 0; // others who left, since this page was opened
  note = "";
  #since = null; // {epoch, offset} of the orders
  #serials = { order: 0, tick: 0 }; // of the last that it wrote
  #writing = { order: false, tick: false };
  #last = new Map(); // who wrote → serial of their last tick
  #left = null; // the node that it was on before
  #wanted; // where it shall go

  constructor(name, home) {
    this.name = name;
    this.home = this.node = this.#wanted = home;
    this.position = make("span", "number");
    this.noteText = make("span", "note number");
    this.button = makeButton("", "", () => watch(this));
    this.button.append(make("span", "name", name), this.position, this.noteText);
    this.element = make("li", "", this.button);
    this.link = new Link(() => this.#url(), {
      patience: PATIENCE,
      onFrame: (frame) => this.#receive(frame),
      onState: (state, close) => this.#changed(state, close),
    });
  }

  /** How far it has read the orders. */
  get offset() {
    return this.#since?.offset;
  }

  /** Writes an order or a tick. An order that was not acknowledged is written again; a tick is over once it was answered. */
  async write(type) {
    if (this.link.state !== "online" || this.#writing[type]) return;
    this.#writing[type] = true;
    try {
      await this.link.call(type, { source: SOURCE, serial: this.#serials[type] + 1 });
      this.#serials[type]++;
      sums.acknowledged++;
      if (type === "order") this.note = "";
    } catch (error) {
      if (error instanceof Refused) {
        sums.refused++;
        if (type === "tick") this.#serials.tick++;
        else this.note = error.code;
      }
    }
    this.#writing[type] = false;
  }

  /** Goes home, by way of a close that asks it to come back. */
  goHome() {
    if (this.node === this.home || !this.home.ready) return;
    this.#wanted = this.home;
    this.link.send("move", {});
  }

  #url() {
    this.node = this.#wanted?.ready ? this.#wanted : choose(this.node, this.#left);
    this.#wanted = null;
    const url = new URL(`ws://${this.node.report.address}/ws/visit`);
    url.searchParams.set("name", this.name);
    if (this.#since) url.searchParams.set("since", `${this.#since.epoch}:${this.#since.offset}`);
    return url;
  }

  #changed(state, close) {
    this.button.dataset.state = state;
    if (state === "offline") {
      if (!this.#left) tell(`${this.name} has lost ${this.node.title} (${close.code})`);
      this.#left = this.node;
      this.#last.clear();
      this.note = `lost (${close.code})`;
    } else if (state === "stopped") {
      this.note = `${close.reason} (${close.code})`;
    }
  }

  #receive({ type, room, offset, data }) {
    if (type === "$joined") this.#joined(data);
    else if (type === "$gap") this.#gap(room);
    else if (type === "$presence") this.#present(data.members);
    else if (type === "$presence_diff") this.#presenceChanged(data);
    else if (type === "ordered") this.#ordered(data, offset);
    else if (type === "ticked") this.#ticked(data);
    else if (type === "welcome") this.#welcome();
  }

  #welcome() {
    this.#left = null;
    this.note = "";
    this.link.ready();
  }

  #joined({ epoch, offset, recovered, count: missed }) {
    if (this.#since) {
      const outcome = recovered ? `recovered ${missed}` : "could not recover";
      if (recovered) sums.recovered += missed;
      else sums.unrecovered++;
      addLine(this.lines.orders, "told", recovered ? "✓" : "!", `${this.node.title}: ${outcome}`);
      tell(`${this.name} on ${this.node.title}: ${outcome}`);
    }
    this.#since = { epoch, offset };
  }

  #ordered({ sender, serial }, offset) {
    sums.delivered++;
    sums.silent += Math.abs(offset - this.#since.offset - 1); // offsets rise by one, or we were told why not
    this.#since.offset = offset;
    addLine(this.lines.orders, "", `#${offset}`, `${sender}, order ${serial}`);
  }

  #ticked({ sender, source, serial }) {
    sums.delivered++;
    const writer = `${sender} ${source}`;
    const last = this.#last.get(writer) ?? serial - 1;
    sums.silent += Math.max(0, serial - last - 1);
    this.#last.set(writer, Math.max(serial, last)); // a node that was frozen hands on what it was sent long ago
    addLine(this.lines.ticks, "", "•", `${sender}, tick ${serial}`);
  }

  #gap(room) {
    if (!room) return; // in what is sent to this user, which is nothing
    sums.gaps++;
    this.#last.clear(); // now nobody knows what is missing
    addLine(this.lines[room], "told", "!", "gap: some may be missing");
    tell(`${this.name} on ${this.node.title}: gap in ${room}`);
  }

  #present(members) {
    this.members = new Map(Object.entries(members).map(([user, devices]) => [user, new Map(Object.entries(devices))]));
  }

  #presenceChanged({ join, leave }) {
    for (const [user, devices] of Object.entries(join)) {
      const known = this.members.get(user) ?? new Map();
      for (const [device, told] of Object.entries(devices)) known.set(device, told);
      this.members.set(user, known);
    }
    for (const [user, devices] of Object.entries(leave)) {
      for (const device of Object.keys(devices)) this.members.get(user)?.delete(device);
      if (this.members.get(user)?.size === 0) {
        this.members.delete(user);
        this.left++;
        if (this === watched) tell(`${user} left, as ${this.name} is told`);
      }
    }
  }
}

/** Returns the node to connect to, as a load balancer would: one that is ready, not the one that was just lost. */
function choose(now, lost) {
  const ready = nodes.filter((node) => node.ready && node !== lost);
  if (ready.length) return ready.reduce((best, node) => (clientsOf(node) < clientsOf(best) ? node : best));
  return lost?.ready ? lost : nodes[(nodes.indexOf(now) + 1) % nodes.length];
}

function clientsOf(node) {
  return clients.filter((client) => client.node === node).length;
}

const clients = CLIENTS.map((name, place) => new Client(name, nodes[place % nodes.length]));
let watched = clients[0];

// --------------------------------------------------------------------------------------- what is shown

function addLine(lines, className, mark, text) {
  lines.push(make("li", className, make("span", "", mark), make("span", "", text)));
  if (lines.length > LINES) lines.shift();
}

/** Says what happened, newest first. */
function tell(text) {
  page.events.prepend(make("li", "", make("span", "", clock.format(Date.now())), make("span", "", text)));
  while (page.events.children.length > LINES) page.events.lastElementChild.remove();
}

function watch(client) {
  watched = client;
  show();
}

function show() {
  for (const [name, sum] of Object.entries(sums)) page[name].textContent = count.format(sum);
  page.silence.classList.toggle("bad", sums.silent > 0);
  for (const room of ROOMS) page[room].replaceChildren(...watched.lines[room].toReversed());
  for (const element of document.querySelectorAll(".watched")) element.textContent = watched.name;
  page.present.replaceChildren(
    ...[...watched.members].sort().map(([user, devices]) =>
      make("li", "", make("span", "", user), make("span", "hint", devices.size === 1 ? "" : `${devices.size} devices`)),
    ),
  );
  page.left.textContent = watched.left;
  for (const client of clients) {
    client.button.ariaPressed = String(client === watched);
    client.position.textContent = client.offset === undefined ? "" : `#${client.offset}`;
    client.noteText.textContent = client.note || `sees ${client.members.size}`;
    if (client.element.parentElement !== client.node.clients) moveTo(client.node.clients, client.element);
  }
}

function moveTo(list, element) {
  const hadFocus = element.contains(document.activeElement);
  list.append(element);
  if (hadFocus) element.firstElementChild.focus();
}

// ---------------------------------------------------------------------------------- the control process

const status = new Status();

const control = new Link(socketURL("ws/control"), {
  onFrame({ type, data }) {
    if (type !== "status") return;
    if (control.state !== "online") control.ready();
    const [first, ...others] = data.processes;
    redis.update(first);
    nodes.forEach((node, place) => node.update(others[place]));
    for (const { link, home } of clients) if (link.state === "closed" && !home.starting) link.open();
  },
  onState(state, close) {
    status.show(state, close);
    for (const button of document.querySelectorAll(".process .buttons button, #all button")) button.disabled = state !== "online";
  },
});

async function ask(type, data, options) {
  page.problem.hidden = true;
  try {
    await control.call(type, data, options);
  } catch (error) {
    page.problemText.textContent = error.message;
    page.problem.hidden = false;
  }
}

function act(process, action) {
  tell(`${process.title}: ${action}`);
  ask("act", { name: process.name, action });
}

// ------------------------------------------------------------------------------------ what the person does

page.roll.addEventListener("click", async () => {
  tell("All nodes are being restarted");
  page.roll.disabled = true;
  await ask("roll", {}, { onItem: (name) => tell(`${name} was restarted`) });
  page.roll.disabled = control.state !== "online";
});
page.spread.addEventListener("click", () => clients.forEach((client) => client.goHome()));
page.dismiss.addEventListener("click", () => {
  page.problem.hidden = true;
});

page.processes.append(redis.element, ...nodes.map((node) => node.element));
status.watch(control);
control.open();
for (const [place, client] of clients.entries()) {
  setTimeout(() => setInterval(() => ["order", "tick"].forEach((type) => client.write(type)), EVERY), (place * EVERY) / clients.length);
}
setInterval(show, SHOW_EVERY);
