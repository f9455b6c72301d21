"""What a verifier promises."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from typing import get_args

from stepconf.contracts import Promise, expect
from stepconf.core.ids import content_id
from stepconf.core.records import Label, Solved, Verdict, bare_solution
from stepconf.core.steps import build_steps
from stepconf.errors import StepconfError
from stepconf.kinds import VERIFIERS
from stepconf.recipe import load_recipe
from stepconf.stages.models import open_engine
from stepconf.verifiers.base import OpenVerifier, Setup, Verifier
from stepconf.workers.pool import Pool

_GIVEN: tuple[tuple[str, str | None, list[str]], ...] = (
    ("What is 2 + 3 - 4?", "1", ["2 + 3 = 5\n", "5 - 4 = 1\n", "The answer is \\boxed{1}."]),
    ("What is 2 + 3 - 4?", "1", ["2 + 3 = 6\n", "6 - 4 = 2\n", "The answer is \\boxed{2}."]),
    ("How many are 3 dozen?", "36", ["3 x 12 = 36"]),
    ("Who wrote it?", None, ["I do not know.\n", "Nobody does."]),
    ("Nothing was written.", "7", []),
)
_HOSTILE: tuple[tuple[str, str | None, list[str]], ...] = (
    ("", None, [""]),
    ("\\frac{", "\\", ["\\boxed{\\boxed{" * 50, "9^{9^{9^{9}}} = 1", "\x00\x1b[31m\u202e = \N{PILE OF POO}"]),
    ("1 = 2", "1e999", ["(" * 5000, "1+" * 5000 + "1 = 0", "__import__('os').getcwd() = 1"]),
)


def promises(name: str, model: str) -> Iterator[Promise]:
    """Those of the verifier of that name; it is open while they are checked."""
    kind: Verifier = VERIFIERS.load(name)
    if kind.open is None:
        raise StepconfError(f"the verdicts of {name} come with branches.", "There is nothing to open.")
    recipe = load_recipe(None, {"verify.verifiers": [name], "model": model})
    with ExitStack() as stack:
        pool = stack.enter_context(Pool(2, recipe.verify.deadline_s))
        verifier = kind.open(Setup(recipe, pool, None, stack, open_engine))
        given, hostile = ([_solved(*one) for one in texts] for texts in (_GIVEN, _HOSTILE))
        yield Promise("it bears the name by which it is called", lambda: _has_name(verifier, name))
        yield Promise("it says one thing of each step", lambda: _is_complete(verifier, given))
        yield Promise("it says the same when asked again", lambda: _is_repeatable(verifier, given))
        yield Promise("it judges a solution by itself", lambda: _is_independent(verifier, given))
        yield Promise("it raises nothing, whatever the text", lambda: _is_complete(verifier, hostile))


def _solved(problem: str, gold: str | None, texts: list[str]) -> Solved:
    text, ends = "".join(texts), [0]
    for one in texts:
        ends.append(ends[-1] + len(one))
    bare = bare_solution("p", problem, gold, text)
    solution = replace(bare, solution_id=content_id(problem, text), n_steps=len(texts))
    steps = build_steps(solution.solution_id, "p", text, list(pairwise(ends)))
    return Solved(solution, steps)


def _has_name(verifier: OpenVerifier, name: str) -> None:
    expect(verifier.name == name, f"it says that it is {verifier.name!r}")
    expect(isinstance(verifier.version, str) and bool(verifier.version), f"version {verifier.version!r}")


def _is_complete(verifier: OpenVerifier, solved: list[Solved]) -> None:
    found = verifier.verify(solved)
    expect(len(found) == len(solved), f"{len(found)} lists for {len(solved)} solutions")
    for verdicts, one in zip(found, solved, strict=True):
        expect(len(verdicts) == len(one.steps), f"{len(verdicts)} entries for {len(one.steps)} steps")
        for verdict in verdicts:
            if verdict is not None:
                _is_sound(verdict, verifier)


def _is_sound(verdict: Verdict, verifier: OpenVerifier) -> None:
    expect(isinstance(verdict, Verdict), f"{verdict!r} is no Verdict")
    expect(verdict.label in get_args(Label), f"label {verdict.label!r}")
    expect((verdict.verifier, verdict.version) == (verifier.name, verifier.version), f"{verdict!r}")
    expect(verdict.score is None or 0 <= verdict.score <= 1, f"score {verdict.score!r}")
    expect(verdict.seconds >= 0, f"{verdict.seconds!r} seconds")
    expect(not verdict.reason.startswith(f"{verifier.name} raised "), verdict.reason)


def _is_repeatable(verifier: OpenVerifier, solved: list[Solved]) -> None:
    first, again = (_said(verifier.verify(solved)) for _ in range(2))
    expect(first == again, f"first {first}, then {again}")


def _is_independent(verifier: OpenVerifier, solved: list[Solved]) -> None:
    together = _said(verifier.verify(solved))
    alone = [_said(verifier.verify([one]))[0] for one in solved]
    expect(together == alone, f"among others {together}, alone {alone}")


def _said(found: list[list[Verdict | None]]) -> list[list[object]]:
    return [[v and (v.label, v.score, v.reason, v.reference) for v in verdicts] for verdicts in found]
