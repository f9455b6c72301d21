"""What the critic does with a chunk of solutions: ask, read, vote, and ask for the reference step.

A form (`forms.py`) says whether a question is about a whole solution or about one step. One about a whole solution
costs n times less than n prefixes, and ProcessBench's critics are asked that way; small critics are better at one
step.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Protocol

from stepconf.core.records import Solved, Verdict
from stepconf.core.segment import SegmentOptions, segment
from stepconf.engines.openai import Messages, Question, Reply
from stepconf.errors import StepconfError
from stepconf.recipe import CriticRecipe
from stepconf.verifiers.critic.forms import FORMS
from stepconf.verifiers.critic.model import TOO_LONG, Weighed
from stepconf.verifiers.critic.prompt import check_prompt, defused, read_prompt, render
from stepconf.verifiers.critic.replies import BadReplyError, Opinion, opinion_of, valid, without_thinking
from stepconf.verifiers.critic.step_form import LEAD, WORDS
from stepconf.verifiers.critic.votes import AFTER_ERROR, Ruling, rulings

MAX_REFERENCE = 8000  # characters; what is longer is not a step
MAX_SAID = 4000  # characters of a reply that are shown to its model again
SPREAD = 0.7  # temperature where replies to one question must differ, and the recipe names none
_MARKER = "====="
_AS_IT_COMES = SegmentOptions()

Weigh = Callable[[Sequence[Messages], str, tuple[str, str]], list[Weighed]]
# A problem and the steps that a question shows.
Shown = tuple[str, Sequence[str]]


class Replies(Protocol):
    """A model that replies: `engines.openai.Endpoint`, or a `ModelCritic`."""

    def ask(self, questions: Sequence[Question]) -> list[Reply]:
        """A reply to each question, in order."""
        ...


@dataclass(slots=True)
class Tally:
    """What a critic has cost, and how well it could be read.

    `readable`: of the `asked` questions, those with a reply that was read, the first or the second. `again`: those
    that were asked twice. Tokens are those of all requests, references included.
    """

    asked: int = 0
    readable: int = 0
    again: int = 0
    tokens_read: int = 0
    tokens_written: int = 0


@dataclass(slots=True)
class _Heard:
    """What came back to one question, asked k times."""

    opinions: list[Opinion] = field(default_factory=list)
    failure: str = ""
    raws: list[str] = field(default_factory=list)
    seconds: float = 0.0
    probability: float | None = None

    def rulings(self, n_steps: int) -> list[Ruling]:
        """One per step that the question showed."""
        if not self.opinions:
            return [Ruling("unknown", None, self.failure)] * n_steps
        found = rulings(self.opinions, n_steps)
        if self.probability is None:
            return found
        return [*found[:-1], found[-1]._replace(score=self.probability)]


class CriticVerifier:
    """Judges every step up to the first wrong one; the steps after it are `unknown`.

    Whatever stands between a question and a readable reply (an error of the endpoint, a timeout, a refusal, a reply
    cut off or of another form) is `unknown` with the reason. A reply that came and could not be read is asked for
    once more: the conversation goes on with it and a reminder of the form, or, where it says nothing, the question is
    put again with another seed.

    Args:
        critic: the model that replies.
        model: its name; part of the version.
        recipe: form, prompt, votes and reference step.
        seed: of sampling.
        structured: hold replies to the form's JSON Schema, where it has one.
        weigh: where `recipe.soft`: `ModelCritic.weigh`.
        segmentation: how the first step of a reference is found.

    Raises:
        StepconfError: the prompt is not there or lacks a field, or the settings contradict each other.
    """

    name = "critic"

    def __init__(
        self,
        critic: Replies,
        model: str,
        recipe: CriticRecipe,
        seed: int = 0,
        structured: bool = False,
        weigh: Weigh | None = None,
        segmentation: SegmentOptions = _AS_IT_COMES,
    ) -> None:
        self._critic, self._recipe, self._seed = critic, recipe, seed
        self._form, self._structured = FORMS[recipe.form], structured
        self._weigh, self._segmentation = weigh, segmentation
        if recipe.soft and (not self._form.by_step or weigh is None or recipe.k > 1):
            raise StepconfError(
                "verify.critic.soft reads the probability of one word, in our own engine.",
                "Take --set verify.critic.form=step, leave out verify.critic.k and verify.critic.base_url.",
            )
        self._prompt = read_prompt(recipe.prompt or self._form.prompt)
        self._reference_prompt = read_prompt("critic_reference")
        check_prompt(self._prompt)
        digest = blake2b(self._prompt.encode(), digest_size=4).hexdigest()
        how = "soft" if recipe.soft else f"k{recipe.k}"
        self.version = f"3+{model}+{recipe.form}+{how}+{digest}"
        self.tally = Tally()

    def verify(self, solved: Sequence[Solved]) -> list[list[Verdict | None]]:
        """One list per solution, one verdict per step; `seconds` is the time of its requests shared out evenly."""
        shown = [(one.solution.problem, [step.text for step in one.steps]) for one in solved]
        judged = self._step_by_step(shown) if self._form.by_step else self._at_once(shown)
        if self._recipe.reference:
            self._add_references(shown, judged)
        return [[*verdicts] for verdicts in judged]

    def _at_once(self, shown: Sequence[Shown]) -> list[list[Verdict]]:
        asked = [i for i, (_, steps) in enumerate(shown) if steps]
        judged: list[list[Verdict]] = [[] for _ in shown]
        for i, heard in zip(asked, self._hear([shown[i] for i in asked]), strict=True):
            n = len(shown[i][1])
            judged[i] = [self._verdict(ruling, heard, heard.seconds / n) for ruling in heard.rulings(n)]
        return judged

    def _step_by_step(self, shown: Sequence[Shown]) -> list[list[Verdict]]:
        """In waves: the next step of each solution in which no step is wrong so far."""
        judged: list[list[Verdict]] = [[] for _ in shown]
        while asked := [i for i, (_, steps) in enumerate(shown) if _is_open(judged[i], len(steps))]:
            wave = [(shown[i][0], shown[i][1][: len(judged[i]) + 1]) for i in asked]
            for i, heard in zip(asked, self._hear(wave), strict=True):
                ruling = heard.rulings(len(judged[i]) + 1)[-1]
                judged[i].append(self._verdict(ruling, heard, heard.seconds))
        after = Verdict(self.name, self.version, "unknown", None, AFTER_ERROR)
        return [
            [*verdicts, *[after] * (len(steps) - len(verdicts))]
            for verdicts, (_, steps) in zip(judged, shown, strict=True)
        ]

    def _verdict(self, ruling: Ruling, heard: _Heard, seconds: float) -> Verdict:
        raw = _joined(heard.raws) if self._recipe.keep_raw and heard.raws else None
        return Verdict(self.name, self.version, *ruling, seconds, None, raw)

    def _hear(self, shown: Sequence[Shown]) -> list[_Heard]:
        """What comes back to a question about each: k replies, each asked for once more where it cannot be read."""
        if self._recipe.soft and self._weigh is not None:
            return self._weighed(shown, self._weigh)
        k = self._recipe.k
        spread = self._recipe.temperature if self._recipe.temperature is not None else SPREAD * (k > 1)
        questions = [
            self._question(problem, steps, spread, self._seed + n)
            for problem, steps in shown
            for n in range(k)
        ]
        heard = [_Heard() for _ in shown]
        unread = self._take(heard, enumerate(self._ask(questions)), shown)
        again = [self._again(questions[i], text, len(shown[i // k][1])) for i, text in unread.items()]
        self.tally.again += len(again)
        self._take(heard, zip(unread, self._ask(again), strict=True), shown)
        self.tally.asked += len(questions)
        self.tally.readable += sum(len(one.opinions) for one in heard)
        return heard

    def _take(
        self, heard: Sequence[_Heard], replies: Iterator[tuple[int, Reply]], shown: Sequence[Shown]
    ) -> dict[int, str]:
        """Read replies by the number of their question; the texts of those that came and cannot be read."""
        unread = {}
        for i, reply in replies:
            one, (_, steps) = heard[i // self._recipe.k], shown[i // self._recipe.k]
            one.seconds += reply.seconds
            if reply.text:
                one.raws.append(valid(reply.text))
            try:
                if reply.failure or reply.flaw:
                    raise BadReplyError(reply.failure or reply.flaw)
                one.opinions.append(self._form.parse(reply.text, len(steps)))
            except BadReplyError as error:
                if not (reply.failure and one.failure):  # a failure to ask again hides no flaw
                    one.failure = str(error)
                if not reply.failure:
                    unread[i] = reply.text
        return unread

    def _again(self, question: Question, text: str, n_steps: int) -> Question:
        """The second question, after a reply that cannot be read."""
        seed = question.seed + self._recipe.k
        said = _said(text)
        if not said:
            # A greedy model would only repeat itself.
            return replace(question, seed=seed, temperature=question.temperature or SPREAD)
        reminder = self._form.reminder.format(last=n_steps - 1)
        turns = [{"role": "assistant", "content": said}, {"role": "user", "content": reminder}]
        return replace(question, seed=seed, messages=[*question.messages, *turns])

    def _weighed(self, shown: Sequence[Shown], weigh: Weigh) -> list[_Heard]:
        """P(True) (arXiv 2207.05221): the probability of `correct` as the verdict, without any prose before it."""
        conversations = [_conversation(self._prompt, problem, steps) for problem, steps in shown]
        heard = []
        for (_, steps), found in zip(shown, weigh(conversations, LEAD, WORDS), strict=True):
            self.tally.asked += 1
            self.tally.tokens_read += found.tokens_read
            if found.probability is None:
                heard.append(_Heard(failure=TOO_LONG))
                continue
            self.tally.readable += 1
            wrong = len(steps) - 1 if found.probability < 0.5 else None
            opinion = opinion_of(wrong, len(steps))
            heard.append(_Heard([opinion], "", [], found.seconds, found.probability))
        return heard

    def _question(self, problem: str, steps: Sequence[str], temperature: float, seed: int) -> Question:
        schema = self._form.schema(len(steps)) if self._structured and self._form.schema else None
        return Question(_conversation(self._prompt, problem, steps), temperature, seed, schema)

    def _ask(self, questions: Sequence[Question]) -> list[Reply]:
        replies = self._critic.ask(questions) if questions else []
        self.tally.tokens_read += sum(reply.tokens_read for reply in replies)
        self.tally.tokens_written += sum(reply.tokens_written for reply in replies)
        return replies

    def _add_references(self, shown: Sequence[Shown], judged: Sequence[list[Verdict]]) -> None:
        """Ask for the next step after the right ones (g_j of arXiv 2605.07353) where a step is wrong."""
        wrong = {
            i: next(j for j, verdict in enumerate(verdicts) if verdict.label == "incorrect")
            for i, verdicts in enumerate(judged)
            if any(verdict.label == "incorrect" for verdict in verdicts)
        }
        questions = [
            Question(
                _conversation(self._reference_prompt, shown[i][0], shown[i][1][:j]),
                self._recipe.temperature or 0.0,
                self._seed,
            )
            for i, j in wrong.items()
        ]
        for (i, j), reply in zip(wrong.items(), self._ask(questions), strict=True):
            text = None if reply.failure or reply.flaw else reference_of(reply.text, self._segmentation)
            seconds = judged[i][j].seconds + reply.seconds
            judged[i][j] = replace(judged[i][j], reference=text, seconds=seconds)


def reference_of(reply: str, segmentation: SegmentOptions) -> str | None:
    """The step in a reply to the reference prompt: its first, where it has more; None where it has none."""
    try:
        text = valid(without_thinking(reply))
    except BadReplyError:
        return None
    lines = [line for line in text.splitlines() if not line.startswith(_MARKER)]
    text = "\n".join(lines).strip()
    spans = segment(text, segmentation)
    step = text[slice(*spans[0])].strip() if spans else ""
    return step if 0 < len(step) <= MAX_REFERENCE else None


def _said(reply: str) -> str:
    """The end of what a reply says after its thinking; "" where it says nothing."""
    try:
        return defused(without_thinking(reply))[-MAX_SAID:]
    except BadReplyError:
        return ""


def _conversation(prompt: str, problem: str, steps: Sequence[str]) -> Messages:
    return [{"role": "user", "content": render(prompt, problem, steps)}]


def _is_open(verdicts: Sequence[Verdict], n_steps: int) -> bool:
    return len(verdicts) < n_steps and not (verdicts and verdicts[-1].label == "incorrect")


def _joined(raws: Sequence[str]) -> str:
    """One reply as it is; several with a line before each."""
    if len(raws) == 1:
        return raws[0]
    return "\n".join(f"{_MARKER} reply {i} {_MARKER}\n{raw}" for i, raw in enumerate(raws))
