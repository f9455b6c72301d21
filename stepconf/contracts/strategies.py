"""What an inference strategy promises. It is asked over a model of three lines that needs no weights."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Literal

from stepconf.contracts import Promise, expect
from stepconf.core.records import TokenScores
from stepconf.core.segment import SegmentOptions
from stepconf.engines.base import Completion, Sampling, cut_at_stop, cut_behind
from stepconf.inference.base import Ask, Question, Result, Setting, Strategy
from stepconf.kinds import STRATEGIES
from stepconf.recipe import InferRecipe, SamplingRecipe

_PROMPTS = ([1, 2, 3], [1, 2, 4])
_QUESTION = Question("q", "What is 1 + 2?", _PROMPTS)
_LINES = (("First, 1 + 1 = 2.\n\n", "Count on.\n\n"), ("Then 2 + 1 = 3.\n\n", "Then 2 + 1 = 4.\n\n"))
_ANSWERS = ("The answer is \\boxed{3}.", "The answer is \\boxed{4}.")
_ROUNDS = 1000
_SETTING = Setting(
    InferRecipe(k=4, tau=0.0),
    SamplingRecipe(max_tokens=200),
    SegmentOptions(),
    (),
    1000,
    lambda kind: lambda a, b: a == b,
)


def promises(name: str, model: str) -> Iterator[Promise]:
    """Those of the strategy of that name."""
    strategy: Strategy = STRATEGIES.load(name)
    yield Promise("it asks for what fits the context, from its prompts on", lambda: _asks_well(strategy))
    yield Promise("its answer is one that the model wrote", lambda: _answers(strategy))
    yield Promise("it counts all tokens that were drawn", lambda: _counts(strategy))
    yield Promise("it answers the same when asked again", lambda: _is_repeatable(strategy))
    yield Promise("it draws what it says it draws", lambda: _draws(strategy))
    yield Promise("a prompt that fills the context is a failure, no error", lambda: _fails(strategy))


def _searched(strategy: Strategy, setting: Setting = _SETTING) -> tuple[Result, list[Ask], int]:
    """The result, what was asked, and the tokens that were drawn."""
    search = strategy.search(_QUESTION, setting)
    asked: list[Ask] = []
    drawn = 0
    given: list[list[Completion]] | None = None
    for _ in range(_ROUNDS):
        try:
            asks = next(search) if given is None else search.send(given)
        except StopIteration as end:
            return end.value, asked, drawn
        given = [[_completed(ask, ask.seed + i) for i in range(ask.n)] for ask in asks]
        drawn += sum(one.n_sampled for row in given for one in row)
        asked += asks
    raise AssertionError(f"no end after {_ROUNDS} rounds")


def _completed(ask: Ask, seed: int) -> Completion:
    """What the model of three lines writes after a prefix: a token for each character."""
    prompt = next((p for p in _PROMPTS if ask.prefix_ids[: len(p)] == p), ask.prefix_ids)
    so_far = "".join(map(chr, ask.prefix_ids[len(prompt) :]))
    seed = seed if ask.sampling.temperature else 0
    draws = blake2b(f"{seed}".encode(), digest_size=3).digest()
    wholes = {"".join(parts): None for parts in _wholes(draws)}
    text = next((whole[len(so_far) :] for whole in wholes if whole.startswith(so_far)), "")
    return _cut(text, ask.sampling)


def _wholes(draws: bytes) -> Iterator[Sequence[str]]:
    """Every solution, the drawn one first."""
    for a in (draws[0] % 2, 1 - draws[0] % 2):
        for b in (draws[1] % 2, 1 - draws[1] % 2):
            for c in (draws[2] % 2, 1 - draws[2] % 2):
                yield _LINES[0][a], _LINES[1][b], _ANSWERS[c]


def _cut(text: str, sampling: Sampling) -> Completion:
    pieces = list(text)
    stop = cut_at_stop(pieces, sampling.stop)
    until = cut_behind(pieces, sampling.until)
    keep = min(n for n in (len(pieces), sampling.max_tokens, stop, until) if n is not None)
    ended = keep == len(pieces) and len(pieces) < sampling.max_tokens
    reason: Literal["stop", "length", "until"] = "until" if keep == until else "length"
    if reason == "length" and (ended or keep == stop):
        reason = "stop"
    pieces = pieces[:keep]
    entropies = [(ord(piece) % 7 + 1) / 100 for piece in pieces]
    scores = TokenScores([-h for h in entropies], entropies, [1 - h for h in entropies])
    return Completion([ord(piece) for piece in pieces], pieces, scores, reason, keep + (reason == "stop"))


def _asks_well(strategy: Strategy) -> None:
    _, asked, _ = _searched(strategy)
    expect(bool(asked), "it asks for nothing")
    for ask in asked:
        expect(any(ask.prefix_ids[: len(p)] == p for p in _PROMPTS), f"it starts from {ask.prefix_ids[:8]}")
        expect(ask.n >= 1 and ask.sampling.max_tokens >= 1, f"{ask}")
        room = _SETTING.context - len(ask.prefix_ids)
        expect(ask.sampling.max_tokens <= room, f"{ask.sampling.max_tokens} tokens where {room} fit")


def _answers(strategy: Strategy) -> None:
    result, _, _ = _searched(strategy)
    expect((result.key, result.question) == (_QUESTION.key, _QUESTION.text), f"it answers {result.key!r}")
    expect(
        result.answer in ("3", "4") and not result.failure, f"{result.answer!r}, failure {result.failure!r}"
    )
    written = "".join(map(chr, result.token_ids))
    expect(result.text == written, f"its text is {result.text!r}, its tokens read {written!r}")
    expect(result.text in {"".join(parts) for parts in _wholes(bytes(3))}, f"nobody wrote {result.text!r}")
    expect("".join(step.text for step in result.steps) == result.text, "its steps do not make its text")


def _counts(strategy: Strategy) -> None:
    result, _, drawn = _searched(strategy)
    expect(result.spent.tokens == drawn, f"it counts {result.spent.tokens} of {drawn}")


def _is_repeatable(strategy: Strategy) -> None:
    first, again = (_searched(strategy)[0] for _ in range(2))
    expect(first == again, f"first {first.answer!r}, then {again.answer!r}")


def _draws(strategy: Strategy) -> None:
    result, asked, _ = _searched(strategy)
    drawn = sum(ask.n for ask in asked)
    if isinstance(strategy.draws, int):
        expect(drawn <= strategy.draws, f"it draws {drawn}")
    elif strategy.draws == "at most k":
        expect(drawn <= _SETTING.infer.k, f"it draws {drawn} of at most {_SETTING.infer.k}")
    elif strategy.draws == "k":
        expect(
            len(result.samples) == _SETTING.infer.k, f"{len(result.samples)} samples of {_SETTING.infer.k}"
        )
    else:
        infer = _SETTING.infer.model_copy(update={"token_budget": 1})
        _, frugal, _ = _searched(strategy, replace(_SETTING, infer=infer))
        expect(len(frugal) < len(asked), "it does not heed token_budget")


def _fails(strategy: Strategy) -> None:
    result, asked, _ = _searched(strategy, replace(_SETTING, context=len(_PROMPTS[0])))
    expect(
        not asked and result.answer is None and bool(result.failure),
        f"{result.answer!r}, {len(asked)} requests",
    )
