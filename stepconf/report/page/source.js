// Where the data come from: the page itself (a report), or the server that sent it (view). Both answer alike.

const EMPTY_FILTER = { q: "", label: "", conflict: false, low: "", high: "", kind: "" };
const PAGE_SIZE = 50;

/** Whether two verifiers contradict each other on the step. */
function inConflict(step) {
  const labels = step.verdicts.map((verdict) => verdict.label);
  return labels.includes("correct") && labels.includes("incorrect");
}

/** Whether nothing is filtered. */
function isEmpty(filter) {
  return Object.keys(EMPTY_FILTER).every((key) => filter[key] === EMPTY_FILTER[key]);
}

/** Whether the step meets every condition at once. */
function meets(step, solution, problem, filter) {
  const entropy = step.entropy_mean;
  if (filter.label && step.label !== filter.label) return false;
  if (filter.conflict && !inConflict(step)) return false;
  if (filter.low !== "" && !(entropy !== null && entropy >= Number(filter.low))) return false;
  if (filter.high !== "" && !(entropy !== null && entropy <= Number(filter.high))) return false;
  if (filter.kind && !step.pairs.some((pair) => pair.kind === filter.kind)) return false;
  if (!filter.q) return true;
  const wanted = filter.q.toLowerCase();
  return (
    problem.problem.toLowerCase().includes(wanted) ||
    step.pieces.join("").toLowerCase().includes(wanted) ||
    problem.problem_id.startsWith(filter.q) ||
    solution.solution_id.startsWith(filter.q)
  );
}

/** Every step of a solution and of its branches, with the solution or branch that it is of. */
function* stepsWithin(solution) {
  for (const step of solution.steps) {
    yield [step, solution];
    for (const branch of branchesOf(step)) yield* stepsWithin(branch);
  }
}

/** The branches that leave before the step, and those that leave after the last one. */
function branchesOf(step) {
  return [...(step.branches ?? []), ...(step.branches_after ?? [])];
}

/** The data that lie in this file. */
function embeddedSource(data) {
  const byId = new Map(data.details.map((problem) => [problem.problem_id, problem]));
  const listed = (row, filter) => {
    const problem = byId.get(row.id);
    return problem.solutions.some((solution) => [...stepsWithin(solution)].some(([step, one]) => meets(step, one, problem, filter)));
  };
  return {
    overview: async () => data.overview,
    async list(filter, page) {
      const found = isEmpty(filter) ? data.problems : data.problems.filter((row) => listed(row, filter));
      const problems = found.slice(page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
      return { total: data.problems.length, matching: found.length, page, page_size: PAGE_SIZE, problems };
    },
    problem: async (id) => byId.get(id) ?? null,
    async solution(problem, id) {
      const found = problem.solutions.find((one) => one.solution_id === id);
      return found ? { steps: found.steps, notes: [] } : null;
    },
  };
}

/** The data that the server reads as they are asked for. */
function servedSource() {
  async function ask(what, query, signal) {
    const answer = await fetch(`/api/${what}?${new URLSearchParams(query)}`, { signal });
    if (answer.status === 404) return null;
    const value = await answer.json();
    if (!answer.ok) throw new Error(value.error);
    return value;
  }
  let last = null;
  return {
    overview: () => ask("overview", {}),
    list(filter, page) {
      last?.abort();
      last = new AbortController();
      return ask("problems", { ...queryOf(filter), page }, last.signal);
    },
    problem: (id) => ask("problem", { id }),
    solution: (problem, id) => ask("solution", { id }),
  };
}

/** The conditions that are set, as the address and the server write them. */
function queryOf(filter) {
  const query = {};
  for (const key of ["q", "label", "low", "high", "kind"]) if (filter[key] !== "") query[key] = filter[key];
  if (filter.conflict) query.conflict = "1";
  return query;
}
