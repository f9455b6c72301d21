"""Strategies over whole solutions: one, or the best of many by vote or by confidence."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace

from stepconf.core.answers import extract_answer
from stepconf.core.prompts import instruction_for
from stepconf.core.reasoning import Thinking, divide
from stepconf.core.segment import segment_parts
from stepconf.core.signals import ENTROPY_MEAN, confidence
from stepconf.core.votes import Tally, confident_vote, majority, most_confident
from stepconf.engines.base import Completion, Sampling, joined
from stepconf.inference.base import (
    Ask,
    Question,
    Result,
    Sample,
    Search,
    Setting,
    Spent,
    Strategy,
    failed,
    step_scores,
    stream_seed,
)
from stepconf.recipe import PromptRecipe

# Which solution stands for the answer: of their answers, the mean entropies of their tokens, and the setting.
Choose = Callable[[Sequence[str | None], Sequence[float | None], Question, Setting], int | None]

# What `dipt` puts in front of the instruction, one way of thinking each.
WAYS = (
    "",
    "Restate the problem in your own words first.",
    "Write down what is given and what is asked, then solve it.",
    "Divide the problem into smaller ones and solve them one by one.",
    "Set up an equation and solve it.",
    "Estimate the result first, then work it out exactly.",
    "Work it out, then check the result by going backwards.",
    "Solve it as a careful teacher would, explaining every line.",
    "Look for a shortcut; if there is none, compute directly.",
    "Solve it in two different ways and compare.",
)


def one(question: Question, setting: Setting) -> Search:
    """`greedy` and `cot`: the most probable token each time. They differ in the prompt."""
    return _whole(question, setting, [question.prompts[0]], 1, 0.0, _most_confident)


def sampled(choose: Choose) -> Callable[[Question, Setting], Search]:
    """`self-consistency`, `best-of-n`, `deepconf`: K samples of one prompt, of which one is chosen."""

    def search(question: Question, setting: Setting) -> Search:
        k, temperature = setting.infer.k, setting.sampling.temperature
        return _whole(question, setting, [question.prompts[0]], k, temperature, choose)

    return search


def diverse(question: Question, setting: Setting) -> Search:
    """`dipt`: K samples, each from the next of the question's prompts."""
    k, prompts = setting.infer.k, question.prompts
    asked = [prompts[i % len(prompts)] for i in range(k)]
    return _whole(question, setting, asked, 1, setting.sampling.temperature, _by_majority)


def _whole(
    question: Question,
    setting: Setting,
    prompts: Sequence[list[int]],
    n: int,
    temperature: float,
    choose: Choose,
) -> Search:
    """Sample `n` solutions of each prompt, then choose."""
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
        return failed(question, "the prompt fills the context", spent)
    completions: list[tuple[list[int], Completion]] = []
    for ask, found in zip(asks, (yield from _sample(asks, setting, spent)), strict=True):
        completions += [(ask.prefix_ids, completion) for completion in found]
    spent.tokens = sum(completion.n_sampled for _, completion in completions)
    spent.peak_branches = len(completions)
    answers = [
        _answer(completion, question, setting, setting.thinking(prompt), spent)
        for prompt, completion in completions
    ]
    entropies = [ENTROPY_MEAN.over(completion.scores) for _, completion in completions]
    samples = [
        Sample(answer, None if h is None else confidence(h), len(completion.token_ids))
        for answer, h, (_, completion) in zip(answers, entropies, completions, strict=True)
    ]
    chosen = choose(answers, entropies, question, setting)
    if chosen is None:
        failure = f"no solution has an answer: {spent.reasons()}"
        return failed(question, failure, spent, samples)
    prompt, best = completions[chosen]
    text = "".join(best.pieces)
    parts = divide(text, setting.thinking(prompt))
    spans = segment_parts(text, parts, setting.segment)
    steps = step_scores(text, spans, best.token_ids, best.pieces, best.scores, parts)
    spent.depth = len(steps)
    total = steps[-1].cumulative_confidence if steps else None
    return Result(
        question.key,
        question.text,
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


def _sample(
    asks: list[Ask], setting: Setting, spent: Spent
) -> Generator[list[Ask], list[list[Completion]], list[list[Completion]]]:
    """The completions of each ask; where the budget for thinking is used up, the thinking is ended and they go on."""
    budget = setting.infer.reasoning_max_tokens
    spent.requests = len(asks)
    if budget is None:
        return (yield asks)
    found = yield [_limited(ask, min(budget, ask.sampling.max_tokens)) for ask in asks]
    more: list[Ask] = []
    at: list[tuple[int, int]] = []
    for i, (ask, row) in enumerate(zip(asks, found, strict=True)):
        for j, completion in enumerate(row):
            if completion.finish_reason != "length":
                continue
            row[j] = setting.ended(completion, setting.thinking(ask.prefix_ids))
            left = ask.sampling.max_tokens - len(row[j].token_ids)
            if left > 0:
                going_on = Ask(ask.prefix_ids + row[j].token_ids, 1, ask.seed + j, ask.sampling)
                more.append(_limited(going_on, left))
                at.append((i, j))
    if more:
        spent.requests += len(more)
        for (i, j), (rest,) in zip(at, (yield more), strict=True):
            found[i][j] = joined(found[i][j], rest)
    return found


def _limited(ask: Ask, max_tokens: int) -> Ask:
    return replace(ask, sampling=replace(ask.sampling, max_tokens=max_tokens))


def _answer(
    completion: Completion, question: Question, setting: Setting, thinking: Thinking, spent: Spent
) -> str | None:
    """The answer of a solution; why there is none is counted."""
    ended = completion.finish_reason == "stop"
    answer = extract_answer("".join(completion.pieces), question.answer_type, ended, thinking)
    if answer is None and ended:
        spent.no_answer += 1
    elif answer is None and completion.n_sampled < setting.sampling.max_tokens:
        spent.context_full += 1
    elif answer is None:
        spent.out_of_tokens += 1
    return answer


def _by_majority(
    answers: Sequence[str | None], entropies: Sequence[float | None], question: Question, setting: Setting
) -> int | None:
    return _best_of(majority(answers, setting.equal(question.answer_type)), entropies)


def _by_confident_vote(
    answers: Sequence[str | None], entropies: Sequence[float | None], question: Question, setting: Setting
) -> int | None:
    confidences = [None if h is None else confidence(h) for h in entropies]
    equal = setting.equal(question.answer_type)
    return _best_of(confident_vote(answers, confidences, setting.infer.deepconf_keep, equal), entropies)


def _most_confident(
    answers: Sequence[str | None], entropies: Sequence[float | None], question: Question, setting: Setting
) -> int | None:
    return most_confident(answers, entropies)


def _best_of(tallies: Sequence[Tally], entropies: Sequence[float | None]) -> int | None:
    """Of a vote's winners, the one of lowest entropy."""
    if not tallies:
        return None
    members = tallies[0].members
    return min(members, key=lambda i: (entropies[i] is None, entropies[i] or 0.0, i))


def _cot_prompts(prompt: PromptRecipe, answer_type: str) -> list[PromptRecipe]:
    """The standing instruction, without the recipe's own and its worked examples."""
    return [PromptRecipe(style=prompt.style, instruction=instruction_for(answer_type))]


def _ways(prompt: PromptRecipe, answer_type: str) -> list[PromptRecipe]:
    return [prompt.model_copy(update={"instruction": f"{way} {prompt.instruction}".strip()}) for way in WAYS]


GREEDY = Strategy(one, 1)
COT = Strategy(one, 1, _cot_prompts)
SELF_CONSISTENCY = Strategy(sampled(_by_majority), "k")
BEST_OF_N = Strategy(sampled(_most_confident), "k")
DEEPCONF = Strategy(sampled(_by_confident_vote), "k")
DIPT = Strategy(diverse, "k", _ways)
