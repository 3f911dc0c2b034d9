// The page of the prices. From top to bottom: the shares, the clock, the connection, the slow client, drawing.

import { Link, socketURL } from "../shared/link.js";
import { make, page, Status } from "../shared/page.js";
import { drawChart, drawSpark, SPAN } from "./chart.js";

const KEPT_EVERY = 100; // milliseconds: prices that come closer together are one point of the chart
const DRAW_EVERY = 250; // milliseconds between two updates of the numbers: faster they could not be read
const ASK_EVERY = 500; // milliseconds between two looks at what the server says of its clients

const money = new Intl.NumberFormat(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const percent = new Intl.NumberFormat(undefined, { style: "percent", minimumFractionDigits: 2, signDisplay: "exceptZero" });
const count = new Intl.NumberFormat();
const coarse = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });

// ------------------------------------------------------------------------------------------- the shares

class Share {
  serial = 0;
  price = 0;
  points = []; // [time, price] of the last minute, oldest first

  constructor(symbol, name) {
    this.symbol = symbol;
    this.name = name;
    const button = make("button", "", make("strong", "", symbol), make("span", "", name));
    button.type = "button";
    button.addEventListener("click", () => choose(this));
    this.button = button;
    this.priceCell = make("td");
    this.changeCell = make("td", "change");
    this.spark = make("canvas");
    this.spark.ariaHidden = "true";
    this.row = make("tr", "", make("td", "", button), this.priceCell, this.changeCell, make("td", "", this.spark));
  }

  /** Takes what it was when the connection began. */
  begin({ opening, past }) {
    this.opening = opening;
    this.serial = 0;
    if (past.length > 0) [this.points, this.price] = [past, past.at(-1)[1]];
  }

  /** Takes a price, and returns how many the page did not see before it. */
  take({ price, serial, at }) {
    const missed = this.serial === 0 ? 0 : serial - this.serial - 1;
    [this.serial, this.price] = [serial, price];
    const points = this.points;
    if (points.length > 1 && at - points.at(-2)[0] < KEPT_EVERY) points[points.length - 1] = [at, price];
    else points.push([at, price]);
    while (points[0][0] < at - SPAN) points.shift();
    return missed;
  }

  get change() {
    return this.price / this.opening - 1;
  }

  show() {
    this.priceCell.textContent = money.format(this.price);
    showChange(this.changeCell, this.change);
    drawSpark(this.spark, this.points, { now: clock(), color: this.change < 0 ? "--down" : "--up" });
  }
}

function showChange(element, change) {
  element.textContent = `${change < 0 ? "▼" : "▲"} ${percent.format(change)}`;
  element.classList.toggle("up", change >= 0);
  element.classList.toggle("down", change < 0);
}

const shares = new Map(); // symbol → Share
let chosen = null;

function choose(share) {
  chosen = share;
  for (const each of shares.values()) {
    each.row.classList.toggle("chosen", each === share);
    each.button.ariaPressed = String(each === share);
  }
  page.shareName.textContent = `${share.name} (${share.symbol})`;
  show();
}

// -------------------------------------------------------------------------------------------- the clock

// The browser's clock and the server's need not agree: what came fastest counts as having come at once.
let skew = Infinity; // milliseconds

/** Returns the time by the server's clock. */
function clock() {
  return Date.now() - (Number.isFinite(skew) ? skew : 0);
}

let newest = 0; // time of the newest price that is here
let worst = 0; // how old prices were when they came, at most, since that was last looked at
let came = 0; // prices since then
let missed = 0; // prices that never came, on this connection

function takeLag() {
  const lag = Math.max(worst, newest ? clock() - newest : 0);
  worst = 0;
  return lag;
}

// --------------------------------------------------------------------------------------- the connection

const status = new Status();
let connection = "";

const link = new Link(socketURL("ws/prices"), {
  onFrame({ type, data }) {
    if (type === "price") takePrice(data);
    else if (type === "ticker.board") takeBoard(data);
  },
  onState(state, close) {
    status.show(state, close);
    if (state !== "online") connection = "";
  },
});

function takeBoard(board) {
  ({ connection } = board);
  missed = newest = worst = came = 0;
  for (const quote of board.quotes) {
    let share = shares.get(quote.symbol);
    if (!share) {
      share = new Share(quote.symbol, quote.name);
      shares.set(quote.symbol, share);
      page.shares.append(share.row);
    }
    share.begin(quote);
  }
  link.ready();
  choose(chosen ?? shares.values().next().value);
}

function takePrice(price) {
  skew = Math.min(skew, Date.now() - price.at);
  newest = price.at;
  worst = Math.max(worst, clock() - price.at);
  came++;
  missed += shares.get(price.symbol)?.take(price) ?? 0;
}

// -------------------------------------------------------------------------------------- the slow client

const lags = { here: [], there: [] }; // [time, milliseconds] of the last minute
let asked = performance.now();
let received = 0; // what the slow client had read then

function addLag(points, lag) {
  points.push([clock(), lag]);
  while (points[0][0] < clock() - SPAN) points.shift();
}

function bytes(amount) {
  return amount < 1024 ? `${amount} B` : `${Math.round(amount / 1024)} KiB`;
}

function duration(milliseconds) {
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

const VERDICTS = {
  off: "Another client of the same prices, beside the server. Make it slow, and see what becomes of it, and of this page.",
  fast: "It reads whatever comes, as this page does.",
  slow: "What it can't take in time is superseded: of each share only the newest price waits for it. It lags by what lies in the buffers, and no more.",
  stalled: "It takes nothing. Its newest prices are kept, one for each share; if that lasts, the server gives it up.",
};

function showClients(answer) {
  const seconds = (performance.now() - asked) / 1000;
  asked = performance.now();
  const online = link.state === "online";
  const lag = takeLag();
  page.myRate.textContent = online ? count.format(Math.round(came / seconds)) : "–";
  page.myLag.textContent = online ? duration(lag) : "–";
  page.myMissed.textContent = online ? coarse.format(missed) : "–";
  page.myPending.textContent = online && answer ? bytes(answer.pending_bytes) : "–";
  came = 0;
  if (online) addLag(lags.here, lag);
  page.clients.classList.toggle("stale", !answer);
  page.pace.disabled = !answer;
  if (!answer) return;

  const { slow } = answer;
  const there = slow.pace !== "off";
  if (there && page.slowLag.textContent === "–") lags.there.length = 0; // another one than before
  const rate = Math.max(0, slow.received - received) / seconds;
  received = slow.received;
  page.slowRate.textContent = there ? count.format(Math.round(rate)) : "–";
  page.slowLag.textContent = there ? duration(slow.behind_ms) : "–";
  page.slowMissed.textContent = there || slow.given_up ? coarse.format(slow.missed) : "–";
  page.slowPending.textContent = there ? bytes(slow.pending_bytes) : "–";
  if (there && !slow.given_up) addLag(lags.there, slow.behind_ms);
  if (!changing) {
    page.pace.querySelector(`[value=${slow.pace}]`).checked = true;
    showVerdict(slow);
  }
  page.connections.textContent = count.format(answer.connections);
  page.delivered.textContent = coarse.format(answer.delivered);
  page.superseded.textContent = coarse.format(answer.superseded);
  page.dropped.textContent = count.format(answer.dropped);
  page.givenUp.textContent = count.format(answer.given_up);
}

function showVerdict({ pace, given_up: givenUp }) {
  const verdict = givenUp
    ? "The server has given it up (4508): it had taken nothing for too long. Nobody else noticed."
    : VERDICTS[pace];
  if (page.verdict.textContent !== verdict) page.verdict.textContent = verdict; // told once by a screen reader
}

async function ask() {
  let answer = null;
  try {
    const response = await fetch(`status?connection=${connection}`, { signal: AbortSignal.timeout(5_000) });
    if (response.ok) answer = await response.json();
  } catch {
    // the server is away; the connection says so
  }
  showClients(answer);
  setTimeout(ask, ASK_EVERY);
}

let changing = false;

page.pace.addEventListener("change", async ({ target }) => {
  changing = true;
  page.problem.hidden = true;
  try {
    const response = await fetch("slow-client", {
      method: "PUT",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ pace: target.value }),
      signal: AbortSignal.timeout(5_000),
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.detail);
    showVerdict(answer);
  } catch (error) {
    page.problem.textContent = `The slow client could not be changed: ${error.message}`;
    page.problem.hidden = false;
  }
  changing = false;
});

// ---------------------------------------------------------------------------------------------- drawing

/** Shows the numbers, four times a second. */
function show() {
  for (const share of shares.values()) share.show();
  if (!chosen) return;
  page.sharePrice.textContent = money.format(chosen.price);
  showChange(page.shareChange, chosen.change);
  page.priceChart.ariaLabel = `${chosen.name} in the last minute: now ${money.format(chosen.price)}, ${percent.format(chosen.change)} since the opening`;
}

/** Draws the charts, with every frame of the screen. */
function draw() {
  const now = clock();
  if (chosen) {
    const line = { points: chosen.points, color: "--accent", fill: "--fill" };
    drawChart(page.priceChart, [line], { now: link.state === "online" ? now : newest, format: (price) => money.format(price) });
  }
  const lines = [{ points: lags.here, color: "--accent" }, { points: lags.there, color: "--slow" }];
  drawChart(page.lagChart, lines, { now, format: duration, floor: 0, ceiling: 1000 });
  requestAnimationFrame(draw);
}

addEventListener("keydown", (event) => {
  if ((event.key !== "ArrowDown" && event.key !== "ArrowUp") || !page.shares.contains(event.target)) return;
  const all = [...shares.values()];
  const next = all.at((all.indexOf(chosen) + (event.key === "ArrowDown" ? 1 : -1)) % all.length);
  event.preventDefault();
  choose(next);
  next.button.focus();
});

status.watch(link);
link.open();
ask();
setInterval(show, DRAW_EVERY);
requestAnimationFrame(draw);
