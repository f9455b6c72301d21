// One solution: its steps, their tokens, verdicts and pairs.

const BANDS = [0.05, 0.25, 0.75, 1.5, 2.5]; // nats: where the tint and the underline change

function bandOf(entropy) {
  const place = BANDS.findIndex((edge) => entropy < edge);
  return place < 0 ? BANDS.length : place;
}

function bandNames() {
  return [...BANDS.map((edge, i) => `${i ? BANDS[i - 1] : 0} to ${edge}`), `${BANDS[BANDS.length - 1]} and above`];
}

/** What the tints mean; each goes with an underline of its own. */
function tintLegend() {
  return el(
    "p",
    { class: "tints" },
    "Entropy of a token, nats: ",
    bandNames().map((name, band) => [el("span", { class: `t b${band}` }, name), " "]),
  );
}

const STEP_OF = new WeakMap(); // the step that an article shows

/**
 * The steps as articles. `context` has mode (tokens or maths), filter, problem, solution, and link(step); there is no
 * link to the steps of a branch.
 */
function stepArticles(steps, context) {
  return steps.map((step) => stepArticle(step, steps.length, context));
}

function stepArticle(step, n, context) {
  const { filter, problem, solution, link } = context;
  const number = step.step_index + 1;
  const conflict = inConflict(step);
  const name = `Step ${number} of ${n}`;
  const article = el(
    "article",
    { class: `step ${step.label}${step.part === "reasoning" ? " reasoning" : ""}`, id: link && `step-${step.step_index}`, tabindex: "-1", "aria-label": `${link ? "" : "Branch: "}${name}, ${step.label}` },
    el(
      "header",
      {},
      el("h4", {}, link ? el("a", { href: link(step.step_index), title: "Link to this step" }, name) : name),
      badge(step.label),
      step.part === "reasoning" && el("span", { class: "label-source" }, step.is_reconsidering ? "thinking, a turn of thought" : "thinking"),
      step.is_first_error && el("span", { class: "badge incorrect" }, "⚑ first error"),
      conflict && el("span", { class: "badge conflict" }, "⇄ verifiers disagree"),
      !isEmpty(filter) && meets(step, solution, problem, filter) && el("span", { class: "badge hit" }, "● meets the filters"),
      step.branches && el("span", { class: "label-source", title: "right ones among the graded branches that leave before this step" }, valueOf(step.branches)),
      el("span", { class: "label-source" }, step.label_source && `label from ${step.label_source}`),
    ),
    stepText(step, context.mode),
    measures(step),
    step.verdicts.length > 0 && verdicts(step.verdicts),
    step.pairs.map(pairDetails),
    step.branches && branchesPart(step.branches, "before this step", context),
    step.branches_after && branchesPart(step.branches_after, "after this step", context),
  );
  STEP_OF.set(article, step);
  return article;
}

const OUTCOMES = { right: ["correct", "right"], wrong: ["incorrect", "wrong"], cut: ["unknown", "cut off"], unknown: ["unknown", "not graded"] };

/** What the completions say of the text before them: the share of right ones. */
function valueOf(branches) {
  const right = branches.filter((one) => one.outcome === "right").length;
  const graded = right + branches.filter((one) => one.outcome === "wrong").length;
  return graded ? `value ${short(right / graded, 2)} (${right} of ${graded} right)` : "value unknown";
}

/** Branches that leave at one place: closed, but where a step of theirs meets the filters. */
function branchesPart(branches, where, context) {
  return el(
    "details",
    { class: "branches", open: branches.some((one) => isHit(one, context)) },
    el("summary", {}, `${count(branches.length, "branch", "branches")} ${where}: ${valueOf(branches)}`),
    branches.map((one) => branchDetails(one, context)),
  );
}

function branchDetails(branch, context) {
  const [sign, word] = OUTCOMES[branch.outcome] ?? OUTCOMES.unknown;
  const known = [`answer ${branch.predicted_answer ?? "none found"}`, count(branch.n_steps, "step"), count(branch.n_tokens, "token")];
  const holder = el("div", {});
  const fill = () => {
    if (!holder.firstChild) holder.append(...stepArticles(branch.steps, { ...context, solution: branch, link: null }));
  };
  const open = isHit(branch, context);
  if (open) fill();
  return el(
    "details",
    { class: "branch", open, on: { toggle: fill } }, // its steps are made when they are asked for
    el("summary", {}, el("span", { class: `badge ${sign}` }, `${SIGNS[sign]} ${word}`), ` ${known.join(" · ")}`),
    holder,
  );
}

function isHit(branch, { filter, problem }) {
  return !isEmpty(filter) && [...stepsWithin(branch)].some(([step, one]) => meets(step, one, problem, filter));
}

function stepText(step, mode) {
  const text = step.pieces.join("");
  if (mode === "maths") return el("div", { class: "text", dir: "auto" }, withMaths(text));
  if (!step.ids.length) return el("div", { class: "text", dir: "auto" }, text);
  const attributes = { class: "text tokens", dir: "auto", tabindex: "0", role: "group", "aria-label": "Tokens: arrow keys read their values" };
  const [lead, ...pieces] = step.pieces;
  if (pieces.length) {
    return el("div", attributes, lead, pieces.map((piece, i) => token(step, i, piece)));
  }
  return [
    el("div", { class: "text", dir: "auto" }, text),
    el("div", { ...attributes, class: "tokens strip", dir: "ltr" }, step.ids.map((id, i) => [token(step, i, String(id)), " "])),
  ];
}

function token(step, i, piece) {
  const node = document.createElement("span");
  const shape = piece === "" ? " empty" : piece.includes("\n") ? " newline" : "";
  node.className = `t b${bandOf(step.entropies[i] ?? 0)}${shape}`;
  node.dataset.i = i;
  node.textContent = piece;
  return node;
}

/** The exact values of a token, as the Parquet files hold them. */
function tokenValues(step, i) {
  const piece = step.pieces.length > 1 ? JSON.stringify(step.pieces[i + 1]) : "text not known";
  const values = [
    ["token", `${piece} (id ${step.ids[i]})`],
    ["entropy", `${step.entropies[i]} nats`, "entropy"],
    ["log-probability", `${step.logprobs[i]} nats`, "logprob"],
    ["largest probability", `${step.max_probs[i]}`, "max-prob"],
  ];
  return el("dl", {}, values.map(([name, value, key]) => [el("dt", {}, name), el("dd", { dir: "auto", "data-value": key }, value)]));
}

function measures(step) {
  const shown = data.signals
    .map(([name, unit]) => [name.replaceAll("_", " "), step[name], unit && ` ${unit}`])
    .filter(([, value]) => value !== null);
  if (!shown.length) return null;
  return el(
    "dl",
    { class: "measures" },
    shown.map(([name, value, unit]) => el("div", {}, el("dt", {}, name), el("dd", { title: String(value) }, short(value) + unit))),
  );
}

function verdicts(all) {
  return el(
    "ul",
    { class: "verdicts", "aria-label": "Verdicts" },
    all.map((one) =>
      el(
        "li",
        { class: `verdict ${one.label}` },
        el("header", {}, el("strong", {}, one.verifier), badge(one.label)),
        one.reason && el("p", { class: "reason", dir: "auto" }, withMaths(one.reason)),
        one.reference && el("div", { class: "reference" }, el("h5", {}, "As it should read"), el("div", { class: "text", dir: "auto" }, withMaths(one.reference))),
        el("p", { class: "help" }, [one.score === null ? "" : `score ${short(one.score)} · `, `version ${one.version} · ${seconds(one.seconds)}`]),
      ),
    ),
  );
}

function pairDetails(pair) {
  const side = (name) =>
    el(
      "div",
      { class: `side ${name}` },
      el("h5", {}, `${name === "chosen" ? "✓" : "✗"} ${name}`),
      el("div", { class: "text", dir: "auto" }, withMaths(pair[name])),
      el(
        "p",
        { class: "help" },
        `confidence ${short(pair[`${name}_confidence`])} · from ${pair[`${name}_source`]} · `,
        pair[`${name}_is_terminal`] ? "ends the solution" : "does not end the solution",
      ),
    );
  return el(
    "details",
    { class: "pair", open: true },
    el("summary", {}, `Pair: ${pair.kind}`),
    el("div", { class: "sides" }, side("chosen"), side("rejected")),
    pair.prefix && el("details", {}, el("summary", {}, "The steps before"), el("div", { class: "text", dir: "auto" }, withMaths(pair.prefix))),
  );
}

/** Hovering, tapping, or arrow keys on the tokens of `container` show their values in `tip`. */
function readTokens(container, tip) {
  let shown = null;
  const hide = () => {
    shown?.classList.remove("on");
    shown = null;
    tip.hidden = true;
  };
  const show = (node) => {
    if (node === shown) return;
    hide();
    shown = node;
    node.classList.add("on");
    tip.replaceChildren(tokenValues(STEP_OF.get(node.closest(".step")), Number(node.dataset.i)));
    tip.hidden = false;
    place(tip, node.getClientRects()[0] ?? node.getBoundingClientRect());
  };
  const over = (event) => {
    const node = event.target.closest?.(".t[data-i]");
    if (node) show(node);
    else if (!container.contains(document.activeElement) || event.type === "pointerdown") hide();
  };
  container.addEventListener("pointerover", over);
  container.addEventListener("pointerdown", over);
  container.addEventListener("pointerleave", hide);
  container.addEventListener("focusout", hide);
  container.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const line = event.target.closest?.(".tokens");
    if (!move || !line) return;
    const all = [...line.querySelectorAll(".t[data-i]")];
    const at = shown && line.contains(shown) ? all.indexOf(shown) + move : move > 0 ? 0 : all.length - 1;
    if (all[at]) show(all[at]);
    event.preventDefault();
  });
}

function place(tip, around) {
  const { width, height } = tip.getBoundingClientRect();
  const left = Math.max(8, Math.min(around.left, document.documentElement.clientWidth - width - 8));
  const below = around.bottom + 6;
  const top = below + height > window.innerHeight ? Math.max(8, around.top - height - 6) : below;
  tip.style.left = `${left}px`;
  tip.style.top = `${top}px`;
}
