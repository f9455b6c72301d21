"""Strategies over whole solutions: one, or as many as a rule wants, of which one is chosen by vote or confidence."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace

from stepconf.core.answers import extract_answer
from stepconf.core.prompts import instruction_for
from stepconf.core.reasoning import Thinking, divide
from stepconf.core.segment import segment_parts
from stepconf.core.stopping import answer_posterior, in_a_row, votes_to_decide, votes_to_foresee
from stepconf.core.votes import confident_vote, most_confident, place, softmax_weights, tallied
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
_ESC_WINDOW = 5  # as in the paper, arXiv 2401.10480


class Draws:
    """The solutions of a question as they are drawn, in order, and what they cost.

    `answers` and `confidences` are theirs, None where there is none; `classes` holds the positions of equal answers,
    as `equal` has it.
    Sample i has the random stream `seed + i` in every strategy: one that stops early sees the first of the samples
    that `self-consistency` would.
    """

    def __init__(self, question: Question, setting: Setting) -> None:
        self.question, self.setting = question, setting
        self.answers: list[str | None] = []
        self.confidences: list[float | None] = []
        self.classes: list[list[int]] = []
        self._spent = Spent()
        self._drawn: list[tuple[list[int], Completion]] = []
        self.equal = setting.equal(question.answer_type)
        self._seed = stream_seed(setting.sampling.seed, question.text)

    def __len__(self) -> int:
        return len(self._drawn)

    def draw(
        self, wanted: Sequence[tuple[list[int], int]], greedy: bool = False
    ) -> Generator[list[Ask], list[list[Completion]], bool]:
        """Draw n solutions of each prompt in `wanted`; whether any had room. `greedy` takes no random stream."""
        temperature = 0.0 if greedy else self.setting.sampling.temperature
        asks, seed = [], self._seed
        for prompt, n in wanted:
            room = self.setting.context - len(prompt)
            if room < 1:
                self._spent.context_full += n
            else:
                limit = min(self.setting.sampling.max_tokens, room)
                how = Sampling(temperature, limit, self.setting.sampling.top_p, self.setting.stop)
                asks.append(Ask(prompt, n, seed, how))
            seed += n
        if not asks:
            return False
        self._seed = self._seed if greedy else seed
        self._spent.peak_branches = max(self._spent.peak_branches, sum(ask.n for ask in asks))
        for ask, found in zip(asks, (yield from _sample(asks, self.setting, self._spent)), strict=True):
            for completion in found:
                self._take(ask.prefix_ids, completion)
        return True

    def _take(self, prompt: list[int], completion: Completion) -> None:
        self._spent.tokens += completion.n_sampled
        self._drawn.append((prompt, completion))
        thinking = self.setting.thinking(prompt)
        has_room = self.setting.context - len(prompt) >= self.setting.sampling.max_tokens
        self.answers.append(_answer(completion, self.question, thinking, has_room, self._spent))
        self.confidences.append(self.setting.answer_confidence(completion.scores.drawn()))
        place(len(self.answers) - 1, self.answers, self.classes, self.equal)

    def result(self, members: Sequence[int]) -> Result:
        """The most confident of the chosen solutions; a failure where none is chosen."""
        question, spent = self.question, self._spent
        samples = [
            Sample(answer, confidence, len(completion.token_ids))
            for answer, confidence, (_, completion) in zip(
                self.answers, self.confidences, self._drawn, strict=True
            )
        ]
        if not self._drawn:
            return failed(question, "the prompt fills the context", spent)
        if not members:
            return failed(question, f"no solution has an answer: {spent.reasons()}", spent, samples)
        chosen = min(members, key=lambda i: (-_or_zero(self.confidences[i]), i))
        prompt, best = self._drawn[chosen]
        text = "".join(best.pieces)
        parts = divide(text, self.setting.thinking(prompt))
        spans = segment_parts(text, parts, self.setting.segment)
        scored = best.token_ids, best.pieces, best.scores
        steps = step_scores(text, spans, *scored, self.setting.confidence, parts)
        spent.depth = len(steps)
        total = steps[-1].cumulative_confidence if steps else None
        return Result(
            question.key,
            question.text,
            self.answers[chosen],
            "",
            text,
            prompt,
            best.token_ids,
            steps,
            total,
            samples,
            spent,
        )


# How many more solutions to draw, 0 for none; and which have won: positions of solutions that say the same.
More = Callable[[Draws], int]
Choose = Callable[[Draws], Sequence[int]]


def one(question: Question, setting: Setting) -> Search:
    """`greedy` and `cot`: the most probable token each time. They differ in the prompt."""
    drawn = Draws(question, setting)
    yield from drawn.draw([(question.prompts[0], 1)], greedy=True)
    return drawn.result([0] if drawn.classes else ())


def sampled(more: More, choose: Choose) -> Callable[[Question, Setting], Search]:
    """Samples of one prompt, at most K, as long as a rule wants more; one of them is chosen."""

    def search(question: Question, setting: Setting) -> Search:
        drawn = Draws(question, setting)
        while (n := min(more(drawn), setting.infer.k - len(drawn))) > 0:
            if not (yield from drawn.draw([(question.prompts[0], n)])):
                break
        return drawn.result(choose(drawn))

    return search


def diverse(question: Question, setting: Setting) -> Search:
    """`dipt`: K samples, each from the next of the question's prompts."""
    drawn, prompts = Draws(question, setting), question.prompts
    yield from drawn.draw([(prompts[i % len(prompts)], 1) for i in range(setting.infer.k)])
    return drawn.result(_by_majority(drawn))


def gated(question: Question, setting: Setting) -> Search:
    """`gate` (after arXiv 2603.08999): greedy first; where it is unsure, K - 1 samples, and all K vote."""
    drawn, prompt = Draws(question, setting), question.prompts[0]
    yield from drawn.draw([(prompt, 1)], greedy=True)
    is_sure = bool(drawn.classes) and _or_zero(drawn.confidences[0]) >= setting.infer.gate
    if len(drawn) and not is_sure and setting.infer.k > 1:
        yield from drawn.draw([(prompt, setting.infer.k - 1)])
    return drawn.result(_by_majority(drawn))


def _all(drawn: Draws) -> int:
    return drawn.setting.infer.k


def _until_ahead(drawn: Draws) -> int:
    """`adaptive`: as many as could decide at once, so that the wave costs no more than one by one would."""
    first, second, _ = _standing(drawn)
    return votes_to_decide(first, second, drawn.setting.infer.threshold)


def _until_foregone(drawn: Draws) -> int:
    """`adaptive-k`: the same, of the vote over all K."""
    infer = drawn.setting.infer
    first, second, wins_ties = _standing(drawn)
    return votes_to_foresee(first, second, infer.k - len(drawn), wins_ties, infer.threshold)


def _standing(drawn: Draws) -> tuple[int, int, bool]:
    """Votes of the leading answer and of the next one; whether the leader came first, so that it wins ties."""
    tallies = tallied(drawn.classes, [1.0] * len(drawn))
    first, second, *_ = [len(tally.members) for tally in tallies] + [0, 0]
    return first, second, not tallies or tallies[0].members[0] == drawn.classes[0][0]


def _until_in_a_row(drawn: Draws) -> int:
    return _ESC_WINDOW - in_a_row(drawn.answers, drawn.classes)


def _until_probable(drawn: Draws) -> int:
    posterior = answer_posterior(drawn.classes, drawn.confidences)
    return 0 if max(posterior, default=0.0) >= drawn.setting.infer.threshold else 1


def _sample(
    asks: list[Ask], setting: Setting, spent: Spent
) -> Generator[list[Ask], list[list[Completion]], list[list[Completion]]]:
    """The completions of each ask; where the budget for thinking is used up, the thinking is ended and they go on."""
    budget = setting.infer.reasoning_max_tokens
    spent.requests += len(asks)
    if budget is None:
        return (yield asks)
    found = yield [_limited(ask, min(budget, ask.sampling.max_tokens)) for ask in asks]
    more: list[Ask] = []
    at: list[tuple[int, int]] = []
    for i, (ask, row) in enumerate(zip(asks, found, strict=True)):
        for j, completion in enumerate(row):
            if completion.finish_reason != "length":
                continue
            closing = setting.closing("".join(completion.pieces), setting.thinking(ask.prefix_ids))
            if closing is not None:
                row[j] = joined(completion, closing)
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
    completion: Completion, question: Question, thinking: Thinking, has_room: bool, spent: Spent
) -> str | None:
    """The answer of a solution; why there is none is counted. `has_room`: the context holds `sampling.max_tokens`."""
    ended = completion.finish_reason == "stop"
    answer = extract_answer("".join(completion.pieces), question.answer_type, ended, thinking)
    if answer is None and ended:
        spent.no_answer += 1
    elif answer is None and has_room:
        spent.out_of_tokens += 1
    elif answer is None:
        spent.context_full += 1
    return answer


def _by_majority(drawn: Draws) -> Sequence[int]:
    return _heaviest(drawn, [1.0] * len(drawn))


def _by_softmax(drawn: Draws) -> Sequence[int]:
    return _heaviest(drawn, softmax_weights(drawn.confidences, drawn.setting.infer.cisc_temperature))


def _by_posterior(drawn: Draws) -> Sequence[int]:
    posterior = answer_posterior(drawn.classes, drawn.confidences)
    return drawn.classes[posterior.index(max(posterior))] if posterior else ()


def _by_confident_vote(drawn: Draws) -> Sequence[int]:
    keep = drawn.setting.infer.deepconf_keep
    tallies = confident_vote(drawn.answers, drawn.confidences, keep, drawn.equal)
    return tallies[0].members if tallies else ()


def _most_confident(drawn: Draws) -> Sequence[int]:
    chosen = most_confident(drawn.answers, drawn.confidences)
    return () if chosen is None else (chosen,)


def _heaviest(drawn: Draws, weights: Sequence[float]) -> Sequence[int]:
    tallies = tallied(drawn.classes, weights)
    return tallies[0].members if tallies else ()


def _or_zero(confidence: float | None) -> float:
    return confidence or 0.0


def _cot_prompts(prompt: PromptRecipe, answer_type: str) -> list[PromptRecipe]:
    """The standing instruction in place of the recipe's own, without its system message and worked examples."""
    return [
        prompt.model_copy(update={"system": "", "instruction": instruction_for(answer_type), "shots": []})
    ]


def _ways(prompt: PromptRecipe, answer_type: str) -> list[PromptRecipe]:
    return [prompt.model_copy(update={"instruction": f"{way} {prompt.instruction}".strip()}) for way in WAYS]


GREEDY = Strategy(one, 1)
COT = Strategy(one, 1, _cot_prompts)
SELF_CONSISTENCY = Strategy(sampled(_all, _by_majority), "k")
CISC = Strategy(sampled(_all, _by_softmax), "k", by_confidence=True)
BEST_OF_N = Strategy(sampled(_all, _most_confident), "k", by_confidence=True)
DEEPCONF = Strategy(sampled(_all, _by_confident_vote), "k", by_confidence=True)
DIPT = Strategy(diverse, "k", _ways)
ADAPTIVE = Strategy(sampled(_until_ahead, _by_majority), "at most k")
ADAPTIVE_K = Strategy(sampled(_until_foregone, _by_majority), "at most k")
ESC = Strategy(sampled(_until_in_a_row, _by_majority), "at most k")
CGES = Strategy(sampled(_until_probable, _by_posterior), "at most k", by_confidence=True)
GATE = Strategy(gated, "at most k", by_confidence=True)
