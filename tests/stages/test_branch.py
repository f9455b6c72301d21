"""Branches through the command line: by a stand-in that does arithmetic, and by a real tiny model."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stepconf.core.branches import TOO_HARD
from stepconf.core.reasoning import Thinking
from stepconf.core.records import Problem, Solved, TokenScores
from stepconf.core.statements import STATES_NOTHING
from stepconf.engines.base import Completion, SampleRequest, Sampling, finish
from stepconf.engines.guard import Guard
from stepconf.problems.load import ImportedSolution
from stepconf.recipe import load_recipe, with_branches
from stepconf.run import meter
from stepconf.stages.branch import Brancher
from stepconf.stages.chunks import Chunk
from stepconf.stages.models import Prompter
from stepconf.stages.rows import branched, imported, sampled
from stepconf.stages.solutions import branch
from stepconf.stages.stream import Made, through
from stepconf.stages.verify import open_pool
from tests.engines.reference import token_numbers
from tests.invariants import Row, check_invariants, rows_of
from tests.scripted_engine import ArithmeticEngine, branched_run, generate
from tests.test_pipeline import write_jsonl
from tests.tiny import VOCABULARY, stepconf, tiny_model, with_tiny


def read(run: Path) -> tuple[dict[str, Row], dict[str, list[Row]]]:
    """Solutions by their id, and the steps of each."""
    solutions, steps = check_invariants(run, VOCABULARY)
    by_solution = defaultdict(list)
    for step in steps:
        by_solution[step["solution_id"]].append(step)
    return {one["solution_id"]: one for one in solutions}, by_solution


def check_exact(solutions: dict[str, Row], steps: dict[str, list[Row]]) -> int:
    """A branch's prompt is its parent's exact prefix, and its first step a sibling of the parent's; how many."""
    branches = [one for one in solutions.values() if one["parent_solution_id"]]
    for own in branches:
        parent, node = solutions[own["parent_solution_id"]], own["branch_step"]
        theirs = steps[parent["solution_id"]]
        end = theirs[node]["token_start"] if node < len(theirs) else parent["n_tokens"]
        assert own["prompt_token_ids"] == parent["prompt_token_ids"] + parent["token_ids"][:end]
        assert own["problem_id"] == parent["problem_id"]
        if node < len(theirs):
            assert steps[own["solution_id"]][0]["prefix_id"] == theirs[node]["prefix_id"]
    return len(branches)


def path_of(solution: Row, solutions: dict[str, Row], steps: dict[str, list[Row]]) -> str:
    """The text of a solution with what its branch leaves behind it."""
    if not solution["parent_solution_id"]:
        return str(solution["text"])
    parent = solutions[solution["parent_solution_id"]]
    own = steps[parent["solution_id"]]
    before = path_of(parent, solutions, steps).removesuffix(parent["text"])
    return before + "".join(step["text"] for step in own[: solution["branch_step"]]) + solution["text"]


def first_wrong_line(text: str, problem: str) -> int | None:
    """The first line of a worked sum that is wrong, or does not go on from the one before."""
    terms = problem.removeprefix("What is ").removesuffix("?").replace("+ ", "+").replace("- ", "-").split()
    total = int(terms[0])
    for index, line in enumerate(text.splitlines()):
        wanted = total + int(terms[index + 1]) if index + 1 < len(terms) else total
        said = line.split("=")[-1] if "=" in line else line.partition("{")[2].partition("}")[0]
        if int(said) != wanted:
            return index
        total = wanted
    return None


@pytest.fixture(scope="module", params=["all", "first-error,uncertain"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("branched") / "run"
    made = generate(out, "--branch", request.param)
    assert made.code == 0, made.err
    return out


def test_branches_are_rows_after_exact_tokens(run: Path) -> None:
    solutions, steps = read(run)
    assert check_exact(solutions, steps) > 30
    seeds = [(tuple(one["prompt_token_ids"]), one["seed"]) for one in solutions.values()]
    assert len(set(seeds)) == len(seeds), "no stream is drawn from twice at one place"


def test_labels_are_what_the_sums_are(run: Path) -> None:
    """Nothing repairs an error here, so the first error is where the sum goes wrong."""
    solutions, steps = read(run)
    found = decided = 0
    for solution in solutions.values():
        if solution["parent_solution_id"] or solution["finish_reason"] == "length":
            continue
        own = steps[solution["solution_id"]]
        error = first_wrong_line(solution["text"], solution["problem"])
        verdicts = [next((v for v in s["verdicts"] if v["verifier"] == "rollout"), None) for s in own]
        if any(v and v["reason"] == TOO_HARD for v in verdicts):
            assert "99" in solution["problem"] and all(v and v["label"] == "unknown" for v in verdicts)
            continue
        labels = [verdict["label"] if verdict else None for verdict in verdicts]
        assert labels == (
            ["correct"] * len(own)
            if error is None
            else ["correct"] * error + ["incorrect"] + [None] * (len(own) - error - 1)
        )
        decided += 1
        found += error is not None
        assert [step["after_error"] for step in own] == [
            error is not None and index > error for index in range(len(own))
        ]
        for verdict in verdicts:
            assert verdict is None or verdict["score"] is None or 0 <= verdict["score"] <= 1
    assert decided > 15 and found > 4


def test_answers_are_those_of_the_whole_path(run: Path) -> None:
    solutions, steps = read(run)
    for solution in solutions.values():
        text = path_of(solution, solutions, steps)
        if solution["finish_reason"] == "stop":
            assert solution["answer_correct"] == (first_wrong_line(text, solution["problem"]) is None)
            assert solution["predicted_answer"] == text.rpartition("{")[2].partition("}")[0]


def test_the_same_samples_give_labels_and_pairs(run: Path, tmp_path: Path) -> None:
    made = stepconf("pairs", run, "--set", "pairs.validation=0", columns=200)
    assert made.code == 0, made.err
    pairs = rows_of(run, "pairs")
    assert {pair["kind"] for pair in pairs} >= {"incorrect"} and len(pairs) >= 6
    solutions, steps = read(run)
    for pair in pairs:
        if pair["kind"] == "incorrect":
            assert first_wrong_line(pair["prefix"] + pair["chosen"], pair["messages"][0]["content"]) is None
            assert (
                first_wrong_line(pair["prefix"] + pair["rejected"], pair["messages"][0]["content"])
                is not None
            )
        step = steps[pair["solution_id"]][pair["step_index"]]
        prompt = solutions[pair["solution_id"]]["prompt_token_ids"]
        assert (
            pair["prompt_ids"] == prompt + solutions[pair["solution_id"]]["token_ids"][: step["token_start"]]
        )


def test_deeper_branches_leave_branches() -> None:
    solutions, steps = read(branched_run())
    assert check_exact(solutions, steps)
    parents = {one["solution_id"]: one["parent_solution_id"] for one in solutions.values()}
    assert any(parents[parents[one]] for one in parents if parents[one]), "a branch of a branch"


def test_no_more_than_the_budget(tmp_path: Path) -> None:
    made = generate(tmp_path / "run", "--branch", "first-error,uncertain", "--set", "branch.budget=1")
    assert made.code == 0, made.err
    tokens: dict[tuple[str, bool], int] = defaultdict(int)
    for one in rows_of(tmp_path / "run", "solutions"):
        tokens[one["problem_id"], one["parent_solution_id"] is None] += one["n_tokens"]
    for problem, is_sample in list(tokens):
        if not is_sample:  # a wave that is longer than what it replaces may go beyond, by its own length
            assert tokens[problem, False] <= 1.6 * tokens[problem, True]


def test_none_are_sampled_where_none_are_wanted(tmp_path: Path) -> None:
    assert generate(tmp_path / "run", "--branch", "none").code == 0
    assert all(one["parent_solution_id"] is None for one in rows_of(tmp_path / "run", "solutions"))


def test_a_real_models_branches_have_exact_entropies(tmp_path: Path) -> None:
    """Without gold answers the least confident steps of every sample are branched, for pairs."""
    problems = write_jsonl(tmp_path / "p.jsonl", [{"problem": f"What is {i}?"} for i in range(3)])
    options = ["--samples", 2, "--max-tokens", 120, "--branch", "uncertain", "--set", "branch.wave=2"]
    ended = stepconf(
        "generate", "--problems", problems, "--out", tmp_path / "run", *with_tiny(branches=True), *options
    )
    assert ended.code == 0, ended.err
    solutions, steps = read(tmp_path / "run")
    assert check_exact(solutions, steps) >= 4
    for one in solutions.values():
        logprobs, entropies, most = token_numbers(
            str(tiny_model()), one["prompt_token_ids"], one["token_ids"]
        )
        own = steps[one["solution_id"]]
        for name, expected in (("logprobs", logprobs), ("entropies", entropies), ("max_probs", most)):
            stored = [value for step in own for value in step[f"token_{name}"]]
            assert stored == pytest.approx(expected, abs=2e-4)
    reasons = {
        v["reason"]
        for own in steps.values()
        for s in own
        for v in s["verdicts"]
        if v["verifier"] == "rollout"
    }
    assert reasons <= {"no gold answer", STATES_NOTHING}


GIVEN = [
    {"id": "a", "problem": "What is 2 + 3 - 4?", "answer": "1", "steps": ["2 + 3 = 6", "6 - 4 = 2", "\\boxed{2}"]},
    {"id": "b", "problem": "What is 9 - 4 - 2?", "answer": "3", "steps": ["9 - 4 = 5", "5 - 2 = 4", "\\boxed{4}"]},
    {"id": "c", "problem": "What is 8 - 3 + 1?", "answer": "6", "steps": ["8 - 3 = 5", "5 + 1 = 6", "\\boxed{6}"]},
]  # fmt: skip


@pytest.mark.parametrize("command", ["verify", "segment"])
def test_given_solutions_are_branched_by_a_model(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepconf.stages.models.open_engine", lambda recipe: ArithmeticEngine(0.2))
    file = write_jsonl(tmp_path / "given.jsonl", GIVEN)
    options: list[Any] = ["--verify", "final,rollout", "--set", "prompt.instruction=Add."]
    ended = stepconf(command, file, "--out", tmp_path / "run", "--model", tiny_model(), *options)
    assert ended.code == 0, ended.err
    solutions, steps = read(tmp_path / "run")
    labels = {
        one["external_id"]: [step["label"] for step in steps[one["solution_id"]]]
        for one in solutions.values()
        if not one["parent_solution_id"]
    }
    assert labels["a"][0] == "incorrect" and labels["b"][:2] == ["correct", "incorrect"]
    assert labels["c"] == ["correct"] * 3
    again = stepconf("verify", tmp_path / "run", "--verify", "symbolic", "--out", tmp_path / "again")
    assert again.code == 0, again.err
    kept = rows_of(tmp_path / "again", "solutions")
    assert [one["solution_id"] for one in kept] == list(solutions), (
        "a run that is verified again keeps its branches"
    )


def test_audit_measures_branches_against_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepconf.stages.models.open_engine", lambda recipe: ArithmeticEngine(0.2))
    rows = [{**row, "label": label} for row, label in zip(GIVEN, (0, 1, -1), strict=True)]
    rows.append({"problem": "What is 6?", "steps": [], "label": -1})
    file = write_jsonl(tmp_path / "given.jsonl", rows)
    answers = write_jsonl(tmp_path / "answers.jsonl", GIVEN[:2])
    options: list[Any] = ["--model", tiny_model(), "--set", "prompt.instruction=Add.", "--answers", answers]
    ended = stepconf("audit", "--on", "processbench", file, "--verify", "rollout", *options, columns=160)
    assert ended.code == 0, ended.err
    assert "2 with a gold answer" in " ".join(ended.out.split()) and "100.0" in ended.out
    none = write_jsonl(tmp_path / "others.jsonl", [{"problem": "What is 1?", "answer": "1"}])
    ended = stepconf(
        "audit", "--on", "processbench", file, "--verify", "rollout", *options[:-1], none, columns=160
    )
    assert ended.code == 1 and "none of the 1 problems" in ended.err


def test_a_solution_without_tokens_is_left_as_it_is() -> None:
    engine = Guard(lambda: ArithmeticEngine(0.0), lambda sentence: None)
    recipe = with_branches(
        load_recipe(None, {"branch.where": ["all"], "prompt.instruction": "Add."}), "verify"
    )
    problem = Problem("p", "What is 2 + 3 - 4?", "1", "math", "", "")
    text = "2 + 3 = 6\n6 - 4 = 2\nThe answer is \\boxed{2}"
    prompt = Prompter(engine.tokenizer, recipe.prompt).ids(problem.text)
    bare, tokenised = (
        imported(ImportedSolution(problem, text, None, i), recipe, tokenizer, ids)
        for i, (tokenizer, ids) in enumerate([(None, []), (engine.tokenizer, prompt)])
    )
    assert isinstance(bare, Solved) and isinstance(tokenised, Solved)
    with open_pool(recipe) as pool:
        brancher = Brancher(recipe, engine, pool, lambda stage, n: None)
        (chunk,) = branch(iter([Chunk("0", "", [], solved=[bare, tokenised])]), brancher)
    assert chunk.solved[0] == bare and len(chunk.solved) > 2
    assert chunk.solved[1].steps[0].verdicts[0].label == "incorrect"


def test_a_branch_has_the_stream_that_is_stored_with_it() -> None:
    engine, n = ArithmeticEngine(0.45), 0
    for row in rows_of(branched_run(), "solutions"):
        if row["parent_solution_id"]:
            how = Sampling(row["temperature"], 96, row["top_p"])
            asked = SampleRequest("", row["prompt_token_ids"], 1, row["seed"], how)
            ((_, (again,)),) = engine.sample([asked])
            assert again.token_ids == row["token_ids"]
            n += row["sample_index"] > 2
    assert n > 0, "second waves"


def test_samples_of_a_problem_in_two_chunks_have_branches_of_their_own() -> None:
    engine = Guard(lambda: ArithmeticEngine(0.3), lambda sentence: None)
    keys = {"branch.where": ["first-error"], "branch.budget": 100.0, "prompt.instruction": "Add."}
    recipe = with_branches(load_recipe(None, keys), "verify")
    problem = Problem("p", "What is 2 + 3 - 4?", "1", "math", "", "")
    prompt = Prompter(engine.tokenizer, recipe.prompt).ids(problem.text)
    texts = [f"2 + 3 = {a}\n{a} - 4 = {a - 4}\nThe answer is \\boxed{{{a - 4}}}" for a in (6, 7)]
    given = [
        imported(ImportedSolution(problem, text, None, i), recipe, engine.tokenizer, prompt)
        for i, text in enumerate(texts)
    ]
    chunks = [Chunk(str(i), "", [], solved=[one]) for i, one in enumerate(given) if isinstance(one, Solved)]
    with open_pool(recipe) as pool:
        made = list(branch(iter(chunks), Brancher(recipe, engine, pool, lambda stage, n: None)))
    branches = [one.solution for chunk in made for one in chunk.solved if one.solution.parent_solution_id]
    streams = {(*one.prompt_token_ids, one.seed) for one in branches}
    at_start = [one for one in branches if one.prompt_token_ids == prompt]
    assert len(streams) == len(branches) and len({one.parent_solution_id for one in at_start}) == 2


def test_time_of_branching_is_not_that_of_the_stage_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that only engines move: 100 s a request of the stage, 1 s a request of branches."""
    now, asked = 0.0, 0
    monkeypatch.setattr(meter.time, "perf_counter", lambda: now)

    class Timed(ArithmeticEngine):
        def _complete(self, request: SampleRequest, index: int) -> Completion:
            nonlocal now, asked
            now, asked = now + 1, asked + 1
            return super()._complete(request, index)

    engine = Guard(lambda: Timed(0.3), lambda sentence: None)
    recipe = with_branches(
        load_recipe(None, {"branch.where": ["all"], "prompt.instruction": "Add."}), "verify"
    )
    prompter = Prompter(engine.tokenizer, recipe.prompt)

    def scoring(requests: Iterator[SampleRequest | None]) -> Iterator[tuple[SampleRequest, None]]:
        nonlocal now
        for request in filter(None, requests):
            now += 100
            yield request, None

    def task(problem: Problem) -> Iterator[Any]:
        ids = prompter.ids(problem.text)
        yield [SampleRequest("", ids, 1, 0, Sampling(1.0, 1))]
        text = "2 + 3 = 6\n6 - 4 = 2\nThe answer is \\boxed{2}"
        one = imported(ImportedSolution(problem, text, None, 0), recipe, engine.tokenizer, ids)
        return Made([one])  # type: ignore[list-item]

    given = [Problem(f"p{i}", "What is 2 + 3 - 4?", "1", "math", "", "") for i in range(3)]
    chunks = [Chunk(str(i), "", [problem]) for i, problem in enumerate(given)]
    with open_pool(recipe) as pool:
        brancher = Brancher(recipe, engine, pool, lambda stage, n: None)
        made = list(branch(through(iter(chunks), scoring, task, "score"), brancher))  # type: ignore[arg-type]
    assert sum(chunk.seconds["score"] for chunk in made) == 100 * len(made)
    assert sum(chunk.seconds["branch"] for chunk in made) == asked > 0
    assert sum(chunk.seconds["idle"] for chunk in made) == 0


class _Plain(ArithmeticEngine):
    """Answers at once."""

    def _complete(self, request: SampleRequest, index: int) -> Completion:
        ids = self.tokenizer.encode("5 - 4 = 1\n\nThe answer is \\boxed{1}.")
        n = len(ids)
        scores = TokenScores([-0.1] * n, [0.1] * n, [0.9] * n)
        return finish(ids, scores, True, request.sampling, self.tokenizer)


def test_a_branch_from_before_the_thinking_need_not_think() -> None:
    engine = Guard(_Plain, lambda sentence: None)
    recipe = with_branches(load_recipe(None, {"branch.where": ["all"]}), "generate", True)
    problem = Problem("p", "What is 2 + 3 - 4?", "1", "math", "", "")
    text = "<think>\n2 + 3 = 6\n</think>\n\nThe answer is \\boxed{2}."
    ids = engine.tokenizer.encode(text)
    n = len(ids)
    completion = Completion(
        ids, engine.tokenizer.pieces(ids), TokenScores([-0.1] * n, [0.1] * n, [0.9] * n), "stop", n
    )
    asked = SampleRequest(
        "", Prompter(engine.tokenizer, recipe.prompt).ids(problem.text), 1, 0, Sampling(1.0, 96)
    )
    one = sampled(problem, asked, 0, completion, engine.info, recipe, Thinking("auto"))
    assert isinstance(one, Solved) and one.solution.reasoning_start == 0
    with open_pool(recipe) as pool:
        (chunk,) = branch(
            iter([Chunk("0", "", [], solved=[one])]), Brancher(recipe, engine, pool, lambda stage, n: None)
        )
    branches = [one for one in chunk.solved if one.solution.branch_step == 0]
    assert branches
    for made in branches:
        assert made.solution.predicted_answer == "1" and {step.part for step in made.steps} == {"answer"}
        assert made.steps[-1].verdicts[-1].label == "correct"


def test_a_run_that_is_branched_later_has_one_verdict_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    assert generate(first, "--branch", "none").code == 0
    monkeypatch.setattr("stepconf.stages.models.open_engine", lambda recipe: ArithmeticEngine(0.3))
    options: list[Any] = ["--verify", "rollout", "--set", "prompt.instruction=Add.", "--out", again]
    ended = stepconf("verify", first, *options)
    assert ended.code == 0, ended.err
    spoken = [[one["verifier"] for one in step["verdicts"]] for step in rows_of(again, "steps")]
    assert any({"final", "rollout"} <= set(names) for names in spoken)
    assert all(len(names) == len(set(names)) for names in spoken)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--branch", "somewhere"], "branch.where"),
        (["--set", "branch.n=0"], "branch.n"),
        (["--set", "branch.budget=0"], "branch.budget"),
        (["--set", "verify.rollout.n=4"], "branch.n"),
    ],
)
def test_bad_input(options: list[str], said: str, tmp_path: Path) -> None:
    ended = generate(tmp_path / "run", *options)
    assert ended.code == 1 and said in ended.err and "Traceback" not in ended.err


def of_pieces(*pieces: str) -> Completion:
    n = len(pieces)
    scores = TokenScores([0.5] * n, [-0.5] * n, [0.6] * n)
    return Completion(list(range(5, 5 + n)), list(pieces), scores, "stop", n_sampled=n)


def test_a_branch_goes_on_from_the_text_of_its_prompt() -> None:
    """In a paragraph the token of a step's first word begins with the blank before it."""
    recipe = load_recipe(None, {"branch.where": ["all"], "prompt.instruction": "Add."})
    info, thinking = ArithmeticEngine(0.0).info, Thinking("auto")
    problem = Problem("p", "How many?", "14", "math", "", "")
    request = SampleRequest("", [3, 4], 1, 0, Sampling(0.7, 64, 1.0))
    pieces = ["3", " +", " 4", " is", " 7", ".", " Then", " 7", " times", " 2", " is", " 14", "."]
    parent = sampled(problem, request, 0, of_pieces(*pieces), info, recipe, thinking)
    assert isinstance(parent, Solved)
    assert [step.text for step in parent.steps] == ["3 + 4 is 7.", " Then 7 times 2 is 14."]
    assert [step.token_start for step in parent.steps] == [0, 6]
    for own, texts in (
        (of_pieces(" We", " double", " it", " to", " 14", ".", " So", " it", " is", " 14", "."),
         [" We double it to 14.", " So it is 14."]),
        (of_pieces("\n", "Two", " times", " 7", " is", " 14", "."), ["\nTwo times 7 is 14."]),
    ):  # fmt: skip
        asked = replace(request, prompt_ids=[*request.prompt_ids, *range(5, 11)])
        one = branched(parent, parent.steps[0].text, 1, asked, 0, own, info, recipe, thinking)
        assert [step.text for step in one.steps] == texts
        assert "".join(texts) == one.solution.text and one.steps[0].prefix_id == parent.steps[1].prefix_id
        assert [step.token_start for step in one.steps] == [0, 6][: len(texts)]
