// Line charts over the last minute, on a canvas.

export const SPAN = 60_000; // milliseconds

const LABELS = 64; // pixels on the right, for the numbers
const HEAD = 8; // pixels above
const FOOT = 18; // pixels below, for the times
const LINES = 4; // horizontal, about

/** Returns a round step that divides a range into about so many. */
function roundStep(range, parts) {
  const rough = range / parts;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough) * power;
}

/** Makes the canvas as fine as the screen, and returns its context in CSS pixels, emptied. */
function begin(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const [fineWidth, fineHeight] = [width, height].map((length) => Math.round(length * devicePixelRatio));
  if (canvas.width !== fineWidth || canvas.height !== fineHeight) {
    [canvas.width, canvas.height] = [fineWidth, fineHeight];
  }
  const context = canvas.getContext("2d");
  context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.lineWidth = 2;
  context.lineJoin = "round";
  return [context, width, height];
}

/** The lowest and the highest value of some points. */
function extent(lines) {
  let [low, high] = [Infinity, -Infinity];
  for (const { points } of lines) {
    for (const [, value] of points) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  return [low, high];
}

function trace(context, points, x, y) {
  context.beginPath();
  for (const [at, value] of points) context.lineTo(x(at), y(value));
}

/**
 * Draws lines with a scale.
 *
 * @param lines [{points: [[time, value], ...], color, fill}], oldest points first; colours are names of CSS variables
 * @param now time at the right end
 * @param format makes a label of a value
 * @param floor what the scale reaches down to, and `ceiling` what it reaches up to at least; by default what there is
 */
export function drawChart(canvas, lines, { now, format, floor, ceiling }) {
  const [context, width, height] = begin(canvas);
  const style = getComputedStyle(canvas);
  const [right, bottom] = [width - LABELS, height - FOOT];
  let [low, high] = extent(lines);
  if (low > high) [low, high] = [0, 1];
  if (floor === undefined) {
    const margin = (high - low || high * 0.01) * 0.12;
    [low, high] = [low - margin, high + margin];
  } else {
    [low, high] = [floor, Math.max(high * 1.1, ceiling)];
  }
  const x = (at) => right - ((now - at) / SPAN) * right;
  const y = (value) => bottom - ((value - low) / (high - low)) * (bottom - HEAD);

  context.font = `12px ${style.fontFamily}`;
  context.textBaseline = "middle";
  context.fillStyle = style.getPropertyValue("--muted");
  context.strokeStyle = style.getPropertyValue("--line");
  context.lineWidth = 1;
  const step = roundStep(high - low, LINES);
  for (let value = Math.ceil(low / step) * step; value <= high; value += step) {
    const level = Math.round(y(value)) + 0.5;
    context.beginPath();
    context.moveTo(0, level);
    context.lineTo(right, level);
    context.stroke();
    context.fillText(format(value), right + 8, level);
  }
  for (const [seconds, align] of [[60, "left"], [40, "center"], [20, "center"], [0, "right"]]) {
    context.textAlign = align;
    context.fillText(seconds ? `${seconds} s ago` : "now", x(now - seconds * 1000), height - 7);
  }
  context.textAlign = "left";

  context.save();
  context.beginPath();
  context.rect(0, 0, right + 3, bottom + 1);
  context.clip();
  context.lineWidth = 2;
  for (const { points, color, fill } of lines) {
    if (points.length === 0) continue;
    trace(context, points, x, y);
    context.strokeStyle = style.getPropertyValue(color);
    context.stroke();
    if (fill) {
      context.lineTo(x(points.at(-1)[0]), bottom);
      context.lineTo(x(points[0][0]), bottom);
      context.fillStyle = style.getPropertyValue(fill);
      context.fill();
    }
    const [at, value] = points.at(-1);
    context.beginPath();
    context.arc(x(at), y(value), 3, 0, 2 * Math.PI);
    context.fillStyle = context.strokeStyle;
    context.fill();
  }
  context.restore();
}

/** Draws one line without a scale, as large as it fits. */
export function drawSpark(canvas, points, { now, color }) {
  const [context, width, height] = begin(canvas);
  const [low, high] = extent([{ points }]);
  const x = (at) => width - ((now - at) / SPAN) * width;
  const y = (value) => height - 2 - ((value - low) / (high - low || 1)) * (height - 4);
  trace(context, points, x, y);
  context.lineWidth = 1.3;
  context.strokeStyle = getComputedStyle(canvas).getPropertyValue(color);
  context.stroke();
}
