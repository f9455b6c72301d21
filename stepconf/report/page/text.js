// Building the page. Whatever a model wrote goes in as text: nothing here makes markup out of a string, and the
// page's policy (Trusted Types) would forbid it.

const LONGEST_FORMULA = 4000;

/** An element with attributes and children; `on` maps events to handlers; strings become text nodes. */
function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    } else {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

const thousands = new Intl.NumberFormat("en");

/** A count with separators, and its noun. */
function count(n, noun, plural = `${noun}s`) {
  return `${thousands.format(n)} ${n === 1 ? noun : plural}`;
}

/** A number for people; "–" for none. The exact one belongs beside it where it matters. */
function short(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  return value !== 0 && Math.abs(value) < 0.5 * 10 ** -digits ? value.toExponential(1) : value.toFixed(digits);
}

function percent(value, digits = 1) {
  return value === null || value === undefined ? "–" : `${(100 * value).toFixed(digits)} %`;
}

/** Text with its formulas set by KaTeX. What is no valid LaTeX stays as it was written. */
function withMaths(text) {
  const fragment = document.createDocumentFragment();
  for (const part of mathsParts(text)) {
    fragment.append(part.tex === undefined ? part.raw : formula(part));
  }
  return fragment;
}

function formula({ tex, raw, display }) {
  const node = el("span", { class: display ? "formula display" : "formula", dir: "ltr", tabindex: display ? "0" : null });
  try {
    katex.render(tex, node, {
      displayMode: display,
      throwOnError: true,
      trust: false,
      strict: "ignore",
      maxSize: 20,
      maxExpand: 200,
    });
    return node;
  } catch {
    return el("span", { class: "raw", title: "not LaTeX that can be set; shown as written" }, raw);
  }
}

/** The text cut into plain parts `{raw}` and formulas `{raw, tex, display}`; the raw parts join to the text. */
function mathsParts(text) {
  const parts = [];
  const next = finder(text);
  const opening = /\\[[(]|\\begin\{([A-Za-z]+\*?)\}|\\?\$\$?/g;
  let from = 0;
  for (let found = opening.exec(text); found; found = opening.exec(text)) {
    const formula = formulaAt(text, found, next);
    if (!formula) continue;
    if (found.index > from) parts.push({ raw: text.slice(from, found.index) });
    parts.push(formula);
    from = found.index + formula.raw.length;
    opening.lastIndex = from;
  }
  if (from < text.length) parts.push({ raw: text.slice(from) });
  return parts;
}

/** `(wanted, from)`: where `wanted` comes next. Asked in ascending order it reads the text once, however often. */
function finder(text) {
  const known = new Map();
  return (wanted, from) => {
    let at = known.get(wanted) ?? 0;
    if (at !== Infinity && at <= from) {
      at = text.indexOf(wanted, from);
      at = at < 0 ? Infinity : at;
      known.set(wanted, at);
    }
    return at;
  };
}

function formulaAt(text, found, next) {
  const [mark, environment] = found;
  const start = found.index + mark.length;
  const upTo = (end, close, display) =>
    end <= start || end - start > LONGEST_FORMULA
      ? null
      : { tex: text.slice(start, end), raw: mark + text.slice(start, end) + close, display };
  if (mark.startsWith("\\$")) return null; // an escaped dollar sign
  if (mark === "\\[") return upTo(next("\\]", start), "\\]", true);
  if (mark === "\\(") return upTo(next("\\)", start), "\\)", false);
  if (mark === "$$") return upTo(next("$$", start), "$$", true);
  if (environment) {
    const close = `\\end{${environment}}`;
    const formula = upTo(next(close, start), close, true);
    return formula && { ...formula, tex: formula.raw };
  }
  // A dollar sign opens a formula only before something else than white space, and closes it only behind such a
  // thing and not before a digit: "$5 and $10" is money.
  const end = next("$", start);
  if (end - start > LONGEST_FORMULA) return null;
  const inside = text.slice(start, end);
  if (/^\s|\n\n|[\\\s]$/.test(inside) || /\d/.test(text[end + 1] ?? "")) return null;
  return upTo(end, "$", false);
}

const SIGNS = { correct: "✓", incorrect: "✗", unknown: "?" };

/** A label as a badge: a sign and a word beside the colour. */
function badge(label) {
  return el("span", { class: `badge ${label}` }, el("span", { "aria-hidden": "true" }, `${SIGNS[label] ?? ""} `), label);
}

/** A table of plain values; numbers are aligned right. */
function table(caption, head, rows) {
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el(
      "table",
      {},
      el("caption", {}, caption),
      el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map(cell)))),
    ),
  );
}

function cell(value, column) {
  const text = typeof value === "number" ? thousands.format(value) : (value ?? "–");
  return column === 0 ? el("th", { scope: "row", dir: "auto" }, text) : el("td", { dir: "auto" }, text);
}

/** Names with their values, as many in a line as fit. */
function facts(entries) {
  const shown = entries.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el(
    "dl",
    { class: "made" },
    shown.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", { dir: "auto" }, String(value)))),
  );
}

/** Seconds for people. */
function seconds(value) {
  return value < 0.001 ? "under 0.001 s" : `${value.toFixed(3)} s`;
}
