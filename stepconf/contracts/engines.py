"""What an engine promises."""

from collections.abc import Iterator
from contextlib import closing
from math import exp, log

from stepconf.contracts import Promise, expect
from stepconf.engines.base import Completion, Engine, EngineClass, SampleRequest, Sampling, ScoreRequest
from stepconf.kinds import ENGINES
from stepconf.recipe import load_recipe
from stepconf.stages.models import open_engine

_TEXTS = ("Problem: What is 12 + 35?\nSolution:\n", "Problem: Solve 2x + 3 = 11.\nSolution:\n")
_NEW, _N = 24, 3
_ROUNDING = 0.02  # nats: of logits in bfloat16, computed in batches of other sizes


def promises(name: str, model: str) -> Iterator[Promise]:
    """Those of the engine of that name; it is open while they are checked."""
    kind: EngineClass = ENGINES.load(name)
    recipe = load_recipe(None, {"model": model, "engine.name": name, "engine.max_model_len": 256})
    with closing(open_engine(recipe)) as engine:
        yield Promise("it gives n completions for each request", lambda: _completes(engine))
        yield Promise("tokens and text agree", lambda: _reads(engine))
        yield Promise("scores are those of a distribution", lambda: _is_distribution(engine))
        yield Promise("it scores its own tokens as it sampled them", lambda: _scores_alike(engine))
        yield Promise("it pauses after the token that completes `until`", lambda: _pauses(engine))
        yield Promise("a prompt that fills the context is a ValueError", lambda: _refuses(engine))
        if kind.reproducible:
            yield Promise("the same seeds give the same tokens", lambda: _is_reproducible(engine))


def _sampled(
    engine: Engine, until: tuple[str, ...] = ()
) -> dict[str, tuple[SampleRequest, list[Completion]]]:
    requests = [
        SampleRequest(str(i), engine.tokenizer.encode_prompt(text), _N, 7, Sampling(0.9, _NEW, until=until))
        for i, text in enumerate(_TEXTS)
    ]
    found = {
        request.key: (request, done)
        for request, done in engine.sample(iter([requests[0], None, *requests[1:]]))
    }
    expect(set(found) == {request.key for request in requests}, f"it answers {sorted(found)}")
    return found


def _all(engine: Engine) -> list[Completion]:
    return [one for _, done in _sampled(engine).values() for one in done]


def _completes(engine: Engine) -> None:
    for _, done in _sampled(engine).values():
        expect(len(done) == _N, f"{len(done)} of {_N}")
        expect(
            all(len(one.token_ids) <= _NEW <= engine.info.max_model_len for one in done), "too many tokens"
        )
        expect(all(one.finish_reason in ("stop", "length") for one in done), "no reason why it ended")


def _reads(engine: Engine) -> None:
    for one in _all(engine):
        read = engine.tokenizer.pieces(one.token_ids)
        expect(one.pieces == read, f"pieces {one.pieces}, of the tokenizer {read}")


def _is_distribution(engine: Engine) -> None:
    most = log(engine.info.vocabulary)
    for one in _all(engine):
        scores = one.scores
        lengths = {len(scores.logprobs), len(scores.entropies), len(scores.max_probs)}
        expect(lengths == {len(one.token_ids)}, f"{len(one.token_ids)} tokens, lists of {lengths}")
        for logprob, entropy, top in zip(scores.logprobs, scores.entropies, scores.max_probs, strict=True):
            expect(logprob <= 1e-6, f"log-probability {logprob}")
            expect(-1e-6 <= entropy <= most + 1e-3, f"entropy {entropy} nats, of at most {most}")
            expect(exp(logprob) - 1e-3 <= top <= 1 + 1e-6, f"largest {top} where one is {exp(logprob)}")
            expect(-log(top) <= entropy + 1e-3, f"entropy {entropy} below that of the likeliest, {-log(top)}")


def _scores_alike(engine: Engine) -> None:
    for request, done in _sampled(engine).values():
        asked = [
            ScoreRequest(str(i), request.prompt_ids, one.token_ids)
            for i, one in enumerate(done)
            if one.token_ids
        ]
        for score, found in engine.score(iter(asked)):
            own = done[int(score.key)].scores
            for name in ("logprobs", "entropies", "max_probs"):
                gaps = [abs(a - b) for a, b in zip(getattr(own, name), getattr(found, name), strict=True)]
                expect(max(gaps) <= _ROUNDING, f"{name} differ by {max(gaps):.4f}")


def _pauses(engine: Engine) -> None:
    letter = next((piece for one in _all(engine) for piece in one.pieces if piece.strip()), "")
    for _, done in _sampled(engine, (letter,)).values():
        for one in done:
            expect(letter not in "".join(one.pieces[:-1]), f"it goes on after {letter!r}")


def _refuses(engine: Engine) -> None:
    prompt = (engine.tokenizer.encode_prompt(_TEXTS[0]) * engine.info.max_model_len)[
        : engine.info.max_model_len
    ]
    asked = SampleRequest("long", prompt, 1, 0, Sampling(0.0, 1))
    try:
        list(engine.sample(iter([asked])))
    except ValueError:
        return
    raise AssertionError("it takes a prompt that fills its context")


def _is_reproducible(engine: Engine) -> None:
    first, again = ([one.token_ids for one in _all(engine)] for _ in range(2))
    expect(first == again, "it gives others")
