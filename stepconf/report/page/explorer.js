// The second part: the list of problems with its filters, and the problem that was chosen.

const LABEL_CHOICES = [["", "any label"], ["correct", "✓ correct"], ["incorrect", "✗ incorrect"], ["unknown", "? unknown"]];
const KIND_CHOICES = [["", "any or none"], ["correct_uncertain", "pair: correct_uncertain"], ["incorrect", "pair: incorrect"], ["trajectory", "pair: trajectory"], ["outcome", "pair: outcome"]];

/**
 * The explorer's parts, empty. `state()` tells where the reader is; `go(changes, { replace })` takes them elsewhere;
 * `link(changes)` is the address of there.
 */
function makeExplorer(source, { state, go, link, tip }) {
  const form = filterForm(go);
  const status = el("p", { class: "status", role: "status" });
  const list = el("ol", { class: "problems" });
  const pages = el("nav", { class: "pages", "aria-label": "Pages of problems" });
  const detail = el("div", { class: "detail", tabindex: "-1" });
  const now = { list: null, problem: null, solution: null, steps: [], rows: [] };
  let asked = 0;

  readTokens(detail, tip);

  async function showList() {
    const { filter, page } = state();
    const key = JSON.stringify([filter, page]);
    form.show(filter);
    if (key !== now.list) {
      now.list = key;
      list.setAttribute("aria-busy", "true");
      const found = await source.list(filter, page).catch((error) => {
        if (key === now.list) now.list = null; // to be asked again
        throw error;
      });
      if (key !== now.list) return; // the reader has asked for something else meanwhile
      list.removeAttribute("aria-busy");
      now.rows = found.problems;
      status.textContent = isEmpty(filter)
        ? count(found.total, "problem")
        : `${thousands.format(found.matching)} of ${count(found.total, "problem")} with a step that meets all filters`;
      list.start = found.page * found.page_size + 1;
      list.replaceChildren(...found.problems.map((row) => listItem(row)));
      pages.replaceChildren(...pageLinks(found));
    }
    for (const anchor of list.querySelectorAll("a")) {
      mark(anchor, anchor.dataset.id === state().p);
    }
  }

  function listItem(row) {
    const { correct, incorrect, unknown } = row.labels;
    const known = [
      count(row.solutions, "solution"),
      row.branches ? count(row.branches, "branch", "branches") : null,
      row.decided ? `${row.right}/${row.decided} right` : null,
      row.entropy && `entropy ${short(row.entropy[0], 2)}–${short(row.entropy[1], 2)}`,
      row.conflicts ? `⇄ ${row.conflicts}` : null,
      row.kinds.length ? `pairs: ${row.kinds.join(", ")}` : null,
    ];
    return el(
      "li",
      {},
      el(
        "a",
        { href: link({ p: row.id, s: "", step: "" }), "data-id": row.id },
        el("span", { class: "snippet", dir: "auto" }, withMaths(row.text)),
        el("span", { class: "facts" }, known.filter(Boolean).join(" · ")),
        el("span", { class: "facts" }, `steps: ✓ ${thousands.format(correct)}  ✗ ${thousands.format(incorrect)}  ? ${thousands.format(unknown)}`),
      ),
    );
  }

  function pageLinks({ page, page_size, matching }) {
    const last = Math.max(0, Math.ceil(matching / page_size) - 1);
    if (!last) return [];
    const to = (target, text) =>
      target < 0 || target > last
        ? el("span", { "aria-disabled": "true" }, text)
        : el("a", { href: link({ page: target }) }, text);
    return [to(page - 1, "← previous"), el("span", {}, `page ${page + 1} of ${thousands.format(last + 1)}`), to(page + 1, "next →")];
  }

  async function showProblem() {
    const { p, s, step, mode, filter } = state();
    const turn = ++asked;
    if (!p) {
      now.problem = null;
      now.solution = null;
      detail.replaceChildren(el("p", { class: "notice" }, "Choose a problem. Keys: j and k go through the list, ? shows all."));
      return;
    }
    if (now.problem?.problem_id !== p) {
      detail.setAttribute("aria-busy", "true");
      const problem = await source.problem(p);
      if (turn !== asked) return;
      now.problem = problem;
      now.solution = null;
      detail.removeAttribute("aria-busy");
      if (!problem) {
        detail.replaceChildren(el("p", { class: "notice" }, `There is no problem ${p} here.`, " A report of a large run holds a sample."));
        return;
      }
      detail.replaceChildren(...problemHead(problem), el("div", { class: "solution" }));
      detail.scrollTop = 0;
    }
    if (!now.problem) return;
    const chosen = now.problem.solutions.find((one) => one.solution_id === s) ?? now.problem.solutions[0];
    const key = JSON.stringify([chosen.solution_id, mode, filter]);
    if (now.solution !== key) {
      const found = await source.solution(now.problem, chosen.solution_id);
      if (turn !== asked) return;
      now.solution = key;
      now.steps = found?.steps ?? [];
      const holder = detail.querySelector(".solution");
      holder.replaceChildren(...solutionPart(chosen, found));
      for (const anchor of detail.querySelectorAll(".samples a")) {
        mark(anchor, anchor.dataset.id === chosen.solution_id);
      }
    }
    tip.hidden = true;
    if (step !== "") focusStep(step);
  }

  function focusStep(step) {
    const node = detail.querySelector(`#step-${CSS.escape(String(step))}`);
    node?.scrollIntoView({ block: "start" });
    node?.focus({ preventScroll: true });
  }

  function problemHead(problem) {
    const known = [
      ["gold answer", problem.gold_answer],
      ["source", [problem.source, problem.split].filter(Boolean).join(", ")],
      ["external id", problem.external_id],
      ["problem id", problem.problem_id],
    ];
    const links = problem.solutions.map((one, i) => {
      const sign = one.answer_correct === null ? "unknown" : one.answer_correct ? "correct" : "incorrect";
      return el(
        "a",
        { href: link({ s: one.solution_id, step: "" }), "data-id": one.solution_id, class: sign, title: `answer ${one.predicted_answer ?? "none"}, ${sign}` },
        `${i + 1} `,
        el("span", { "aria-hidden": "true" }, SIGNS[sign]),
        el("span", { class: "hidden" }, ` answer ${sign}`),
      );
    });
    return [
      el("a", { class: "back", href: link({ p: "", s: "", step: "" }) }, "← Problems"),
      el("h3", {}, "Problem"),
      el("div", { class: "text problem", dir: "auto" }, withMaths(problem.problem)),
      facts(known),
      el("nav", { class: "samples", "aria-label": "Solutions of this problem" }, el("span", { class: "label-source" }, "Solutions"), links),
    ];
  }

  function solutionPart(solution, found) {
    const { mode, filter } = state();
    const right = solution.answer_correct === null ? "unknown" : solution.answer_correct ? "correct" : "incorrect";
    const known = [
      ["answer", solution.predicted_answer ?? "none found"],
      ["ended", { stop: "by itself", length: "cut off", length_in_reasoning: "cut off inside its thinking", imported: "imported" }[solution.finish_reason] ?? solution.finish_reason],
      ["tokens", thousands.format(solution.n_tokens)],
      ["branches", found ? found.steps.flatMap(branchesOf).length || null : null],
      ["mean entropy", solution.entropy_mean === null ? null : `${short(solution.entropy_mean)} nats`],
      ["confidence", solution.confidence === null ? null : short(solution.confidence)],
      ["temperature", solution.temperature],
      ["seed", solution.seed],
      ["model", solution.model],
      ["solution id", solution.solution_id],
    ];
    const choice = (value, text) =>
      el("label", {}, el("input", { type: "radio", name: "mode", value, checked: mode === value, on: { change: () => go({ mode: value }, { replace: true }) } }), text);
    const context = { mode, filter, problem: now.problem, solution, link: (step) => link({ s: solution.solution_id, step }) };
    return [
      el("h3", {}, `Solution ${now.problem.solutions.indexOf(solution) + 1} of ${now.problem.solutions.length} `, badge(right)),
      facts(known),
      (found?.notes ?? []).map((note) => el("p", { class: "notice" }, note)),
      el("fieldset", { class: "modes" }, el("legend", {}, "Show steps as"), choice("tokens", "tokens by entropy"), choice("maths", "text with maths")),
      mode === "tokens" && tintLegend(),
      found ? stepArticles(found.steps, context) : el("p", { class: "notice" }, "This solution is not here."),
    ].flat().filter(Boolean);
  }

  /** The neighbour of the chosen problem or solution, some places on. */
  function neighbour(what, move) {
    const { p, s } = state();
    const ids = what === "problem" ? now.rows.map((row) => row.id) : (now.problem?.solutions ?? []).map((one) => one.solution_id);
    const at = ids.indexOf(what === "problem" ? p : s || ids[0]);
    return ids[Math.max(0, Math.min(ids.length - 1, at < 0 && move < 0 ? 0 : at + move))];
  }

  return {
    nodes: [el("h2", { class: "hidden" }, "Explorer"), el("div", { class: "list" }, form.node, status, list, pages), detail],
    show: () => Promise.all([showList(), showProblem()]),
    neighbour,
    nSteps: () => now.steps.length,
    search: form.search,
  };
}

function mark(anchor, here) {
  if (here) anchor.setAttribute("aria-current", "true");
  else anchor.removeAttribute("aria-current");
}

function filterForm(go) {
  const set = (changes) => go({ filter: changes, page: 0 }, { replace: true });
  const field = (name, control) => el("label", { class: `field ${name}` }, el("span", {}, name), control);
  const choice = (key, choices) =>
    el("select", { on: { change: (event) => set({ [key]: event.target.value }) } }, choices.map(([value, text]) => el("option", { value }, text)));
  let waiting = 0;
  const typed = (key) => ({
    input: (event) => {
      clearTimeout(waiting);
      waiting = setTimeout(() => set({ [key]: event.target.value }), 200);
    },
  });
  const bound = (key, text) => el("input", { type: "number", min: "0", step: "any", inputmode: "decimal", placeholder: text, on: typed(key) });
  const controls = {
    q: el("input", { type: "search", placeholder: "problem, step text or id", maxlength: "500", "aria-keyshortcuts": "/", on: typed("q") }),
    label: choice("label", LABEL_CHOICES),
    kind: choice("kind", KIND_CHOICES),
    low: bound("low", "0"),
    high: bound("high", "any"),
    conflict: el("input", { type: "checkbox", on: { change: (event) => set({ conflict: event.target.checked }) } }),
  };
  const node = el(
    "form",
    { class: "filters", role: "search", "aria-label": "Filter problems by their steps", on: { submit: (event) => event.preventDefault() } },
    field("search", controls.q),
    field("label", controls.label),
    field("pairs", controls.kind),
    field("entropy from", controls.low),
    field("to (nats)", controls.high),
    el("label", { class: "check" }, controls.conflict, "verifiers disagree"),
    el("button", { type: "button", on: { click: () => set(EMPTY_FILTER) } }, "Clear"),
  );
  return {
    node,
    search: controls.q,
    /** Bring the controls to the filter, but not the one that is being typed in. */
    show(filter) {
      for (const [key, control] of Object.entries(controls)) {
        if (key === "conflict") control.checked = filter.conflict;
        else if (control !== document.activeElement || isEmpty(filter)) control.value = filter[key];
      }
    },
  };
}
