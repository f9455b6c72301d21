// Three plots as SVG. Each says its numbers in words and in a table as well: colour and shape are never all there is.

const WIDTH = 360;
const HEIGHT = 240;
const MARGIN = { left: 64, right: 12, top: 12, bottom: 40 };

/** A frame with axes; `draw(x, y)` gives what is inside, in the units of the data. */
function plot({ title, caption, xLabel, yLabel, xMax = 1, yMin: lowest = 0, yMax: highest = 1, draw, numbers }) {
  const unit = niceStep(highest - lowest);
  const yMax = Math.ceil(highest / unit - 1e-9) * unit;
  const yMin = Math.floor(lowest / unit + 1e-9) * unit;
  const x = (value) => MARGIN.left + (value / xMax) * (WIDTH - MARGIN.left - MARGIN.right);
  const y = (value) => HEIGHT - MARGIN.bottom - ((value - yMin) / (yMax - yMin)) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const axes = svg(
    "g",
    { class: "axes" },
    ticks(yMax - yMin, unit).map((tick) => tick + yMin).map((value) => [
      svg("line", { x1: x(0), x2: x(xMax), y1: y(value), y2: y(value) }),
      svg("text", { x: x(0) - 6, y: y(value) + 4, "text-anchor": "end" }, formatTick(value)),
    ]),
    ticks(xMax).map((value) => svg("text", { x: x(value), y: y(yMin) + 16, "text-anchor": "middle" }, formatTick(value))),
    svg("text", { class: "name", x: x(xMax / 2), y: HEIGHT - 6, "text-anchor": "middle" }, xLabel),
    svg("text", { class: "name", transform: `translate(11 ${y((yMin + yMax) / 2)}) rotate(-90)`, "text-anchor": "middle" }, yLabel),
  );
  return el(
    "figure",
    { class: "plot" },
    el("h3", {}, title),
    svg(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}. ${caption}` },
      hatch(),
      axes,
      draw(x, y),
    ),
    el("figcaption", {}, caption),
    el("details", {}, el("summary", {}, "The numbers"), numbers),
  );
}

/** A round step that divides 0 to `max` into three to six parts. */
function niceStep(max) {
  const power = 10 ** Math.floor(Math.log10(max / 4));
  return [1, 2, 2.5, 5, 10].map((digit) => digit * power).find((step) => max / step <= 5.5);
}

function ticks(max, step = niceStep(max)) {
  return Array.from({ length: Math.floor(max / step + 1e-9) + 1 }, (_, i) => i * step);
}

function formatTick(value) {
  return value >= 1000 ? thousands.format(Math.round(value)) : String(Number(value.toPrecision(3)));
}

/** Stripes for the second kind of bar: the two differ without their colours. */
function hatch() {
  return svg(
    "defs",
    {},
    svg(
      "pattern",
      { id: "hatch", width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
      svg("rect", { class: "hatch-ground", width: 5, height: 5 }),
      svg("line", { class: "hatch-line", x1: 0, y1: 0, x2: 0, y2: 5 }),
    ),
  );
}

function path(points) {
  return points.map(([px, py], i) => `${i ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(1)}`).join("");
}

/** How often steps of some confidence are correct. */
function reliabilityPlot({ bins }) {
  return plot({
    title: "Reliability",
    caption: "Share of correct steps by step confidence. On the dashed line confidence is honest; bars below it are overconfident.",
    xLabel: "step confidence, exp(−entropy)",
    yLabel: "share correct",
    draw: (x, y) => [
      bins.map((bin) =>
        svg(
          "rect",
          {
            class: "bar",
            x: x(bin.low) + 1,
            width: Math.max(1, x(bin.high) - x(bin.low) - 2),
            y: y(bin.accuracy),
            height: y(0) - y(bin.accuracy),
          },
          svg("title", {}, `${count(bin.count, "step")}: confidence ${short(bin.confidence)}, correct ${percent(bin.accuracy)}`),
        ),
      ),
      svg("path", { class: "honest", d: path([[x(0), y(0)], [x(1), y(1)]]) }),
      bins.map((bin) => svg("circle", { class: "point", cx: x(bin.confidence), cy: y(bin.accuracy), r: 3 })),
    ],
    numbers: table(
      "Reliability by bin",
      ["confidence", "steps", "mean confidence", "correct"],
      bins.map((b) => [`${short(b.low, 1)} to ${short(b.high, 1)}`, b.count, short(b.confidence), percent(b.accuracy)]),
    ),
  });
}

/** How steps of either label spread over entropy. */
function histogramPlot({ edges, correct, incorrect, max }) {
  const total = [correct, incorrect].map((counts) => counts.reduce((sum, n) => sum + n, 0));
  const share = [correct.map((n) => n / (total[0] || 1)), incorrect.map((n) => n / (total[1] || 1))];
  const top = edges[edges.length - 1];
  const bars = (kind, values) => (x, y) =>
    values.map((value, i) =>
      svg(
        "rect",
        {
          class: `bar ${kind}`,
          x: x(edges[i]) + 0.5,
          width: Math.max(1, x(edges[i + 1]) - x(edges[i]) - 1),
          y: y(value),
          height: y(0) - y(value),
        },
        svg("title", {}, `${kind}, ${short(edges[i], 2)} to ${short(edges[i + 1], 2)} nats: ${percent(value)}`),
      ),
    );
  const last = max > top ? `; the last bar takes all up to ${short(max, 2)}` : "";
  const figure = plot({
    title: "Entropy of steps",
    caption: `Mean entropy of ${count(total[0], "correct step")} and ${count(total[1], "incorrect step")}, each as a share of its own${last}.`,
    xLabel: "mean entropy of the step, nats",
    yLabel: "share of steps",
    xMax: top,
    yMax: Math.max(...share[0], ...share[1], 1e-9),
    draw: (x, y) => [bars("correct", share[0])(x, y), bars("incorrect", share[1])(x, y)],
    numbers: table(
      "Steps by entropy",
      ["nats", "correct", "incorrect"],
      correct.map((n, i) => [`${short(edges[i], 2)} to ${short(edges[i + 1], 2)}`, n, incorrect[i]]),
    ),
  });
  figure.querySelector("svg").after(legend([["correct", "correct (filled)"], ["incorrect", "incorrect (striped)"]]));
  return figure;
}

function legend(entries) {
  return el(
    "ul",
    { class: "legend" },
    entries.map(([kind, text]) =>
      el("li", {}, svg("svg", { width: 14, height: 14, "aria-hidden": "true" }, hatch(), svg("rect", { class: `bar ${kind}`, width: 14, height: 14 })), text),
    ),
  );
}

/** What share of steps is wrong if only the surest are kept. */
function riskPlot({ points, area, base }) {
  const yMax = Math.max(base, ...points.map(([, risk]) => risk), 1e-9);
  return plot({
    title: "Risk and coverage",
    caption: `Errors among the steps of lowest entropy, by how many are kept. Area under the curve ${short(area)}; the dashed line is the error rate of all, ${percent(base)}.`,
    xLabel: "share of steps kept, surest first",
    yLabel: "share incorrect",
    yMax,
    draw: (x, y) => [
      svg("path", { class: "honest", d: path([[x(0), y(base)], [x(1), y(base)]]) }),
      svg("path", { class: "curve", d: path(points.map(([coverage, risk]) => [x(coverage), y(risk)])) }),
    ],
    numbers: table(
      "Risk by coverage",
      ["kept", "incorrect"],
      points.filter((_, i) => i % 20 === 19 || i === points.length - 1).map(([c, r]) => [percent(c), percent(r)]),
    ),
  });
}
