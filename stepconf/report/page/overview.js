// The first part: figures over all steps, plots, and how the run was made.

const FORMS = {
  percent: (value) => percent(value),
  number: (value) => short(value),
  nats: (value) => short(value),
};

function overviewPart(data) {
  return [
    el("h2", {}, "Overview"),
    countsLine(data),
    data.counts.branches && el("p", { class: "help" }, "Figures, plots and counts are of samples; branches, which start from chosen places, are counted apart."),
    data.headline.length ? headline(data) : el("p", { class: "notice" }, "No step is labelled correct or incorrect, so there are no figures of accuracy."),
    data.reliability &&
      el("div", { class: "plots" }, reliabilityPlot(data.reliability), histogramPlot(data.histogram), riskPlot(data.risk)),
    el("div", { class: "tables" }, labelsTable(data), dropsTable("Steps without a label, by reason", data.unlabelled), branchesTable(data), verifiersTable(data), agreementTable(data), pairTables(data), dropsTable("Left out, by reason", data.drops)),
    el("h3", {}, "How it was made"),
    facts(data.made),
  ];
}

function countsLine({ counts }) {
  const names = { problems: "problem", solutions: "solution", steps: "step", tokens: "token", branches: "branch", pairs: "pair" };
  const shown = Object.entries(names).filter(([key]) => counts[key] !== undefined);
  return el("p", { class: "counts" }, shown.map(([key, noun]) => count(counts[key], noun, key)).join(" · "));
}

function headline({ headline, n_resamples }) {
  const cards = headline.map(({ name, form, help, estimate, low, high }) =>
    el(
      "div",
      { class: "card" },
      el("dt", {}, form === "nats" ? `${name} (nats)` : name),
      el("dd", {}, el("strong", {}, estimate === null ? "undefined" : FORMS[form](estimate)), el("span", { class: "interval" }, bounds(form, low, high)), el("span", { class: "help" }, help)),
    ),
  );
  const how = `In brackets: 95 % intervals from ${count(n_resamples, "resample")} of the problems.`;
  return [el("dl", { class: "cards" }, cards), el("p", { class: "help" }, how)];
}

function bounds(form, low, high) {
  if (low === null) return "no interval: one problem";
  const write = (value) => (form === "percent" ? (100 * value).toFixed(1) : short(value));
  return `[${write(low)}, ${write(high)}]`;
}

function labelsTable({ labels, conflicts, coverage, tokens_per_label: price }) {
  const rows = Object.entries(labels).map(([label, n]) => [`${SIGNS[label]} ${label}`, n]);
  rows.push(["verifiers disagree", conflicts]);
  if (coverage !== null && coverage !== undefined) rows.push(["coverage of steps that state something, in problems not too hard", percent(coverage)]);
  if (price) rows.push(["tokens a label", short(price, 1)]);
  return table("Steps by label", ["label", "steps"], rows);
}

function branchesTable({ branches }) {
  if (!branches.solutions) return null;
  const { right, wrong, cut, ungraded } = branches.outcomes;
  return table("Branches", ["what", "number"], [
    ["branches", branches.solutions],
    ["✓ right", right],
    ["✗ wrong", wrong],
    ["? cut off", cut],
    ["? not graded", ungraded],
    ["steps", branches.steps],
    ...Object.entries(branches.labels ?? {}).map(([label, n]) => [`steps labelled ${SIGNS[label] ?? ""} ${label}`, n]),
    ["tokens", branches.tokens],
    ["times the samples' tokens", short(branches.tokens_per_sample_token, 2)],
  ]);
}

function verifiersTable({ verifiers }) {
  const rows = Object.entries(verifiers).map(([name, one]) => [
    name, one.correct, one.incorrect, one.unknown, percent(one.coverage), percent(one.incorrect_rate), seconds(one.seconds),
  ]);
  return rows.length
    ? wide(table("Verifiers", ["verifier", "correct", "incorrect", "unknown", "decides", "incorrect of decided", "time"], rows))
    : null;
}

function agreementTable({ agreement }) {
  const rows = agreement.map((pair) => [
    `${pair.first}, ${pair.second}`, pair.steps, percent(pair.agreement), short(pair.kappa), pair.only_first_correct, pair.only_second_correct,
  ]);
  const head = ["verifiers", "both decide", "agree", "Cohen's kappa", "only the first: correct", "only the second: correct"];
  return rows.length ? wide(table("Agreement of verifiers", head, rows)) : null;
}

function wide(node) {
  node.classList.add("wide");
  return node;
}

function pairTables({ pairs }) {
  if (!pairs) return null;
  const tau = pairs.tau === null || pairs.tau === undefined ? "" : `, tau ${short(pairs.tau)}`;
  return [
    table(`Pairs by kind (${pairs.strategy}${tau})`, ["kind", "pairs"], Object.entries(pairs.pairs ?? {})),
    Object.keys(pairs.splits ?? {}).length ? table("Pairs by split", ["split", "pairs"], Object.entries(pairs.splits)) : null,
    dropsTable("Without a pair, by reason", pairs.drops ?? {}),
  ];
}

function dropsTable(caption, reasons) {
  const rows = Object.entries(reasons);
  return rows.length ? table(caption, ["reason", "count"], rows) : null;
}
