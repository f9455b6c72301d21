"""Strategies over whole solutions: one, or the best of many by vote or by confidence."""

from collections.abc import Sequence

from stepconf.core.answers import extract_answer
from stepconf.core.segment import segment
from stepconf.core.signals import ENTROPY_MEAN, confidence
from stepconf.core.votes import Tally, confident_vote, majority, most_confident
from stepconf.engines.base import Completion, Sampling
from stepconf.inference.base import (
    Ask,
    Question,
    Result,
    Sample,
    Search,
    Setting,
    Spent,
    failed,
    step_scores,
    stream_seed,
)


def one(strategy: str, question: Question, setting: Setting) -> Search:
    """`greedy` and `cot`: the most probable token each time. They differ in the prompt."""
    return _whole(strategy, question, setting, [question.prompts[0]], 1, 0.0)


def sampled(strategy: str, question: Question, setting: Setting) -> Search:
    """`self-consistency`, `best-of-n`, `deepconf`: K samples of one prompt."""
    k, temperature = setting.infer.k, setting.sampling.temperature
    return _whole(strategy, question, setting, [question.prompts[0]], k, temperature)


def diverse(strategy: str, question: Question, setting: Setting) -> Search:
    """`dipt`: K samples, each from the next of the question's prompts."""
    k, prompts = setting.infer.k, question.prompts
    asked = [prompts[i % len(prompts)] for i in range(k)]
    return _whole(strategy, question, setting, asked, 1, setting.sampling.temperature)


def _whole(
    strategy: str,
    question: Question,
    setting: Setting,
    prompts: Sequence[list[int]],
    n: int,
    temperature: float,
) -> Search:
    """Sample `n` solutions of each prompt, then choose as the strategy says."""
    spent = Spent()
    first = stream_seed(setting.sampling.seed, question.text)
    asks = []
    for number, prompt in enumerate(prompts):
        room = setting.context - len(prompt)
        if room < 1:
            spent.context_full += n
            continue
        limit = min(setting.sampling.max_tokens, room)
        how = Sampling(temperature, limit, setting.sampling.top_p, setting.stop)
        asks.append(Ask(prompt, n, first + number, how))
    if not asks:
        return failed(question, strategy, "the prompt fills the context", spent)
    completions: list[tuple[list[int], Completion]] = []
    for ask, found in zip(asks, (yield asks), strict=True):
        completions += [(ask.prefix_ids, completion) for completion in found]
    spent.requests = len(asks)
    spent.tokens = sum(completion.n_sampled for _, completion in completions)
    spent.peak_branches = len(completions)
    answers = [_answer(completion, question, setting, spent) for _, completion in completions]
    entropies = [ENTROPY_MEAN.over(completion.scores) for _, completion in completions]
    samples = [
        Sample(answer, None if h is None else confidence(h), len(completion.token_ids))
        for answer, h, (_, completion) in zip(answers, entropies, completions, strict=True)
    ]
    chosen = _choose(strategy, question, setting, answers, entropies)
    if chosen is None:
        failure = f"no solution has an answer: {spent.reasons()}"
        return failed(question, strategy, failure, spent, samples)
    prompt, best = completions[chosen]
    text = "".join(best.pieces)
    steps = step_scores(text, segment(text, setting.segment), best.token_ids, best.pieces, best.scores)
    spent.depth = len(steps)
    total = steps[-1].cumulative_confidence if steps else None
    return Result(
        question.key,
        question.text,
        strategy,
        answers[chosen],
        "",
        text,
        prompt,
        best.token_ids,
        steps,
        total,
        samples,
        spent,
    )


def _answer(completion: Completion, question: Question, setting: Setting, spent: Spent) -> str | None:
    """The answer of a solution; why there is none is counted."""
    ended = completion.finish_reason == "stop"
    answer = extract_answer("".join(completion.pieces), question.answer_type, guess=ended)
    if answer is None and ended:
        spent.no_answer += 1
    elif answer is None and completion.n_sampled < setting.sampling.max_tokens:
        spent.context_full += 1
    elif answer is None:
        spent.out_of_tokens += 1
    return answer


def _choose(
    strategy: str,
    question: Question,
    setting: Setting,
    answers: Sequence[str | None],
    entropies: Sequence[float | None],
) -> int | None:
    """Which solution stands for the answer: of a vote's winners, the one of lowest entropy."""
    equal = setting.equal(question.answer_type)
    confidences = [None if h is None else confidence(h) for h in entropies]
    if strategy in ("self-consistency", "dipt"):
        return _best_of(majority(answers, equal), entropies)
    if strategy == "deepconf":
        tallies = confident_vote(answers, confidences, setting.infer.deepconf_keep, equal)
        return _best_of(tallies, entropies)
    return most_confident(answers, entropies)


def _best_of(tallies: Sequence[Tally], entropies: Sequence[float | None]) -> int | None:
    if not tallies:
        return None
    members = tallies[0].members
    return min(members, key=lambda i: (entropies[i] is None, entropies[i] or 0.0, i))
