// Where the reader is: the part of the address behind `#`, so that every place has a link. Keys, and the theme.

const data = JSON.parse(document.getElementById("data").textContent);
const source = data.served ? servedSource() : embeddedSource(data);
const parts = { overview: document.getElementById("overview"), explorer: document.getElementById("explorer") };
const tip = document.getElementById("tip");

function readState() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const given = new URLSearchParams(query);
  const filter = { ...EMPTY_FILTER };
  for (const key of ["q", "label", "low", "high", "kind"]) filter[key] = given.get(key) ?? "";
  filter.conflict = given.get("conflict") === "1";
  return {
    part: path === "explorer" ? "explorer" : "overview",
    p: given.get("p") ?? "",
    s: given.get("s") ?? "",
    step: given.get("step") ?? "",
    mode: given.get("mode") === "maths" ? "maths" : "tokens",
    page: Math.max(0, Number.parseInt(given.get("page") ?? "0", 10) || 0),
    filter,
  };
}

function addressOf({ part, p, s, step, mode, page, filter }) {
  const query = new URLSearchParams(queryOf(filter));
  if (page) query.set("page", page);
  if (p) query.set("p", p);
  if (p && s) query.set("s", s);
  if (p && step !== "") query.set("step", step);
  if (mode !== "tokens") query.set("mode", mode);
  return part === "overview" ? "#/overview" : `#/explorer${query.size ? `?${query}` : ""}`;
}

function changed(changes) {
  const here = readState();
  return { ...here, part: "explorer", ...changes, filter: { ...here.filter, ...changes.filter } };
}

const link = (changes) => addressOf(changed(changes));

function go(changes, { replace = false } = {}) {
  const address = link(changes);
  if (address === location.hash) return;
  if (!replace) {
    location.hash = address;
    return;
  }
  history.replaceState(null, "", address);
  show();
}

const explorer = makeExplorer(source, { state: readState, go, link, tip });
parts.explorer.append(...explorer.nodes);

async function show() {
  const { part, p } = readState();
  for (const [name, node] of Object.entries(parts)) {
    node.hidden = name !== part;
    const anchor = document.getElementById(`to-${name}`);
    if (name === part) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
  parts.explorer.classList.toggle("chosen", Boolean(p));
  tip.hidden = true;
  try {
    if (part === "explorer") await explorer.show();
    else await showOverview();
  } catch (error) {
    if (error.name !== "AbortError") say(error.message);
  }
}

let overviewShown = null;

function showOverview() {
  overviewShown ??= fillOverview();
  return overviewShown;
}

async function fillOverview() {
  const waiting = el("p", { class: "notice", role: "status" }, "Computing the figures…");
  parts.overview.replaceChildren(waiting);
  parts.overview.replaceChildren(...overviewPart(await source.overview()).flat(2).filter(Boolean));
}

/** A message in place, above everything. */
function say(message) {
  document.getElementById("notes").append(el("p", { class: "notice", role: "alert" }, message));
}

const KEYS = [
  ["/", "search", () => explorer.search.focus()],
  ["j", "next problem", () => go({ p: explorer.neighbour("problem", 1), s: "", step: "" })],
  ["k", "previous problem", () => go({ p: explorer.neighbour("problem", -1), s: "", step: "" })],
  ["]", "next solution", () => go({ s: explorer.neighbour("solution", 1) ?? "", step: "" })],
  ["[", "previous solution", () => go({ s: explorer.neighbour("solution", -1) ?? "", step: "" })],
  ["n", "next step", () => toStep(1)],
  ["p", "previous step", () => toStep(-1)],
  ["m", "tokens or maths", () => go({ mode: readState().mode === "maths" ? "tokens" : "maths" }, { replace: true })],
  ["o", "overview or explorer", () => { location.hash = readState().part === "overview" ? "#/explorer" : "#/overview"; }],
  ["?", "these keys", () => help.showModal()],
];

function toStep(move) {
  const { step } = readState();
  const at = step === "" ? (move > 0 ? 0 : explorer.nSteps() - 1) : Number(step) + move;
  if (at >= 0 && at < explorer.nSteps()) go({ step: at });
}

const help = el(
  "dialog",
  { "aria-labelledby": "keys-title" },
  el("h2", { id: "keys-title" }, "Keys"),
  el("dl", { class: "keys" }, KEYS.map(([key, what]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, what)]), el("dt", {}, el("kbd", {}, "← →")), el("dd", {}, "values of tokens, on a step's text")),
  el("form", { method: "dialog" }, el("button", {}, "Close")),
);
document.body.append(help);
document.getElementById("keys").addEventListener("click", () => help.showModal());

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  const typing = event.target.closest?.("input, select, textarea");
  if (typing) {
    if (event.key === "Escape") event.target.blur();
    if (typing.type !== "radio" && typing.type !== "checkbox") return;
  }
  const found = KEYS.find(([key]) => key === event.key);
  if (!found) return;
  event.preventDefault();
  found[2]();
});

const THEMES = ["auto", "light", "dark"];

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  document.getElementById("theme").textContent = `Theme: ${theme}`;
  try {
    localStorage.setItem("stepconf-theme", theme);
  } catch {
    // a page opened from disk may have no storage: the theme is then that of this visit
  }
}

function storedTheme() {
  try {
    return localStorage.getItem("stepconf-theme");
  } catch {
    return null;
  }
}

let theme = THEMES.includes(storedTheme()) ? storedTheme() : "auto";
setTheme(theme);
document.getElementById("theme").addEventListener("click", () => {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  setTheme(theme);
});

document.getElementById("name").textContent = data.name;
data.notes.forEach((note) => document.getElementById("notes").append(el("p", { class: "notice" }, note)));
window.addEventListener("hashchange", show);
show();
