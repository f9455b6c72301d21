"""Competing steps sampled at q_j: by the run's model, after exact tokens, only where a pair lacks a side.

All requests of a run are one stream, so that the engine's batch stays full and siblings' prefixes are in its
cache. Each continuation is cut where its first step ends, and that step is verified as a run's steps are.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from hashlib import blake2b

from stepconf.core.pairs.steps import reads_alike
from stepconf.core.pairs.traces import ID_BYTES, Place, Side, Trace, ids_of, to_bytes
from stepconf.core.records import Label, Solved, bare_solution
from stepconf.core.schema import extra_of
from stepconf.core.segment import segment
from stepconf.core.steps import build_steps, measure
from stepconf.engines.base import Completion, Engine, SampleRequest, Sampling
from stepconf.engines.tokenizer import starts_of
from stepconf.recipe import PairsRecipe, Recipe
from stepconf.stages.judge import labelled, open_verifiers
from stepconf.stages.models import Prompter
from stepconf.stages.solve import segment_options
from stepconf.verifiers.base import Verifier


@dataclass
class Part:
    """Some problems' solutions, all of each problem's; `sampled`: by prefix, the candidates sampled there."""

    name: str
    traces: Sequence[Trace]
    sampled: Mapping[bytes, Sequence[Side]] = field(default_factory=dict)


@dataclass
class Sampled:
    """A part with what was sampled for it: where candidates are wanted, and what came back, by prefix."""

    part: Part
    wanted: dict[bytes, Place]
    found: dict[bytes, list[Completion]] = field(default_factory=dict)


def sampled(
    parts: Iterator[Part],
    missing: Callable[[Part], list[Place]],
    engine: Engine,
    recipe: Recipe,
    options: PairsRecipe,
    counts: Counter[str],
) -> Iterator[Sampled]:
    """Each part, when what was sampled for it is in; parts may change places.

    Args:
        parts: problems' solutions.
        missing: the steps of a part that lack a candidate.
        engine: the run's model.
        recipe: the run's recipe, which says how to sample.
        options: how many candidates, how long, how warm.
        counts: where none could be asked for; added to.
    """
    where: dict[str, tuple[Sampled, bytes]] = {}
    ready: list[Sampled] = []

    def requests() -> Iterator[SampleRequest]:
        for part in parts:
            waiting = Sampled(part, {})
            asked: list[SampleRequest] = []
            for place in {place.prefix_ids: place for place in missing(part)}.values():
                request = _request(part.name, place.prefix_ids, engine, recipe, options)
                if request is None:
                    counts["prefix as long as the context"] += 1
                    continue
                waiting.wanted[place.prefix_ids] = place
                where[request.key] = (waiting, place.prefix_ids)
                asked.append(request)
            if not asked:
                ready.append(waiting)
            yield from asked

    for request, completions in engine.sample(requests()):
        waiting, prefix = where.pop(request.key)
        waiting.found[prefix] = completions
        if len(waiting.found) == len(waiting.wanted):
            ready.append(waiting)
        while ready:
            yield ready.pop()
    while ready:
        yield ready.pop()


def open_judges(recipe: Recipe) -> AbstractContextManager[list[Verifier]]:
    """Those of the run's verifiers that judge candidates: the ones that ask no model."""
    names = [name for name in recipe.verify.verifiers if name in ("symbolic", "final")]
    verify = recipe.verify.model_copy(update={"verifiers": names})
    return open_verifiers(recipe.model_copy(update={"verify": verify}))


def _request(
    part: str, prefix: bytes, engine: Engine, recipe: Recipe, options: PairsRecipe
) -> SampleRequest | None:
    """The request for candidates at a prefix; its random stream is the prefix's own, in any order."""
    room = min(options.candidate_max_tokens, engine.info.max_model_len - len(prefix) // ID_BYTES)
    if room < 1:
        return None
    given = options.candidate_temperature
    temperature = recipe.sampling.temperature if given is None else given
    how = Sampling(temperature, room, recipe.sampling.top_p, Prompter(engine.tokenizer, recipe.prompt).stop)
    digest = blake2b(prefix + str(options.seed).encode(), digest_size=16)
    seed = int.from_bytes(digest.digest()[:6], "big")
    return SampleRequest(f"{part}/{digest.hexdigest()}", ids_of(prefix), options.candidates, seed, how)


def judge_candidates(
    waiting: Sampled, recipe: Recipe, verifiers: Sequence[Verifier], counts: Counter[str]
) -> None:
    """Give the part its candidates as verified sides; what became of them is added to `counts`, by kind."""
    made: list[tuple[bytes, Side, Solved]] = []
    for prefix, completions in waiting.found.items():
        place = waiting.wanted[prefix]
        for completion in completions:
            counts["sampled"] += 1
            side = first_step(place, completion, recipe)
            if isinstance(side, str):
                counts[side] += 1
            elif reads_alike(side.text, place.side.text):
                counts["equal to the step"] += 1
            else:
                made.append((prefix, side, _as_solved(place, side, recipe)))
    solved = [one for _, _, one in made]
    spoken = [verifier.verify(solved) for verifier in verifiers]
    sides: dict[bytes, list[Side]] = {}
    for i, (prefix, side, one) in enumerate(made):
        said = [[by[i][j] for by in spoken] for j in range(len(one.steps))]
        label: Label = labelled(one, said, recipe.verify.policy).steps[-1].label
        counts[f"verified {label}"] += 1
        sides.setdefault(prefix, []).append(side._replace(label=label))
    waiting.part.sampled = sides


def first_step(place: Place, completion: Completion, recipe: Recipe) -> Side | str:
    """The first step of a continuation, not yet verified, or the reason why there is none.

    The text before it is segmented with it, since the layout of the whole decides where steps end. A token
    belongs to it if it starts in it.
    """
    before = place.trace.text[: place.char_start]
    text = before + "".join(completion.pieces)
    ends = [end for _, end in segment(text, segment_options(recipe)) if end > len(before)]
    if not ends or not text[len(before) :].strip():
        return "empty"
    is_last = ends[0] == len(text)
    if is_last and completion.finish_reason == "length":
        return "longer than candidate_max_tokens"
    own = text[len(before) : ends[0]]
    n = bisect_left(starts_of(completion.pieces), len(own))
    scores = completion.scores
    measures = measure(scores.logprobs[:n], scores.entropies[:n], scores.max_probs[:n])
    if measures.logprob_sum is None:
        return "empty"
    return Side(
        text=own,
        ids=to_bytes(completion.token_ids[:n]),
        label="unknown",
        confidence=measures.confidence,
        mean_logprob=measures.logprob_sum / n,
        is_terminal=is_last,
        source="candidate",
        tie=own,
    )


def _as_solved(place: Place, side: Side, recipe: Recipe) -> Solved:
    """The steps before and the candidate, as a solution for verifiers.

    It counts as cut off where the candidate does not end it: no answer is then no wrong answer.
    """
    trace = place.trace
    starts = [one.char_start for one in trace.places[: place.step_index + 1]]
    text = trace.text[: place.char_start] + side.text
    solution = replace(
        bare_solution(trace.problem_id, trace.problem, trace.gold_answer, text),
        solution_id=trace.solution_id,
        model=recipe.model,
        finish_reason="stop" if side.is_terminal else "length",
        n_steps=len(starts),
        extra=extra_of(trace.extra, trace.solution_id),
    )
    spans = list(zip(starts, [*starts[1:], len(text)], strict=True))
    return Solved(solution, build_steps(trace.solution_id, trace.problem_id, text, spans, token_starts=[]))
