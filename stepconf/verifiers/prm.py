"""The `prm` verifier: a process reward model gives every step a score in [0, 1].

Each known kind of model wants its own text and is read at its own places; a *form* is that knowledge, a pure
function. One forward reads all steps of a solution: the models are causal, so a score depends on nothing
after its place.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from stepconf.core.records import Label, Solved, Verdict
from stepconf.demo_model import resolve_model
from stepconf.errors import StepconfError
from stepconf.recipe import PrmRecipe
from stepconf.verifiers.base import Verifier, shown_model

QWEN_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
QWEN_SEPARATOR = "<extra_0>"
SHEPHERD_TAG = "ки"

Messages = list[dict[str, str]]
# Renders a conversation with the model's chat template; with True up to where the next answer starts.
Template = Callable[[Messages, bool], str]


class Marked(NamedTuple):
    """A text and, per step, the character after the place that is read (the last token that ends there)."""

    text: str
    marks: list[int]


@dataclass(frozen=True, slots=True)
class Form:
    """One kind of model. `render(problem, steps, template)` gives what it reads.

    `tokens`: the good and the bad token whose logits are compared; None: a classifier, whose class 1 is good.
    """

    name: str
    tokens: tuple[str, str] | None
    render: Callable[[str, Sequence[str], Template], Marked]


class Reader(Protocol):
    """A loaded reward model (`engines.reward.RewardModel`)."""

    def template(self, messages: Messages, answer_next: bool) -> str:
        """A conversation as text."""
        ...

    def clean(self, text: str) -> str:
        """The text without the model's special tokens."""
        ...

    def read(self, inputs: Sequence[tuple[str, list[int]]]) -> list[list[float] | None]:
        """Per text the scores at its marks; None where it exceeds the context."""
        ...


class PrmVerifier:
    """Judges every step: `incorrect` below the threshold, else `correct`.

    A solution longer than the model's context is `unknown`. `seconds`: the batch's time shared out evenly.
    """

    name = "prm"

    def __init__(self, model: Reader, form: Form, model_name: str, threshold: float) -> None:
        self._model, self._form, self._threshold = model, form, threshold
        self.version = f"1+{model_name}+{form.name}"

    def verify(self, solved: Sequence[Solved]) -> list[list[Verdict | None]]:
        """One list per solution, one verdict per step."""
        started = time.perf_counter()
        clean = self._model.clean
        inputs = [
            self._form.render(
                clean(one.solution.problem), [clean(step.text) for step in one.steps], self._model.template
            )
            for one in solved
        ]
        scores = self._model.read(inputs)
        seconds = (time.perf_counter() - started) / max(1, sum(len(one.steps) for one in solved))
        return [
            [self._verdict(None if found is None else found[j], seconds) for j in range(len(one.steps))]
            for one, found in zip(solved, scores, strict=True)
        ]

    def _verdict(self, score: float | None, seconds: float) -> Verdict:
        if score is None or score != score:
            reason = "longer than the reward model's context" if score is None else "score is not a number"
            return Verdict(self.name, self.version, "unknown", None, reason, seconds)
        label: Label = "correct" if score >= self._threshold else "incorrect"
        return Verdict(self.name, self.version, label, score, "", seconds)


def qwen(problem: str, steps: Sequence[str], template: Template) -> Marked:
    """Qwen2.5-Math-PRM: the solution as the assistant's turn, `<extra_0>` after each step, read there."""
    mark = "\N{REPLACEMENT CHARACTER}" * 3  # stands for the solution, so that the template sees nothing of it
    system = {"role": "system", "content": QWEN_SYSTEM}
    turns = [system, {"role": "user", "content": problem}, {"role": "assistant", "content": mark}]
    head, _, tail = template(turns, False).rpartition(mark)
    return _appended(head, [step.strip() + QWEN_SEPARATOR for step in steps], tail)


def math_shepherd(problem: str, steps: Sequence[str], template: Template) -> Marked:
    """Math-Shepherd: plain text, `Step i: ... ки` a line, read at each `ки`."""
    lines = [
        ("" if step.lstrip().startswith(f"Step {i}:") else f"Step {i}: ") + f"{step.strip()} {SHEPHERD_TAG}"
        for i, step in enumerate(steps, 1)
    ]
    return _appended(f"{problem.strip()} ", lines, "", "\n")


def rlhflow(problem: str, steps: Sequence[str], template: Template) -> Marked:
    """RLHFlow: each step is a user's turn (the first after the problem), answered `+`; read before it."""
    turns: Messages = []
    marks: list[int] = []
    prefixes: list[str] = []
    for i, step in enumerate(steps):
        content = f"{problem.strip()} {step.strip()}" if i == 0 else step.strip()
        turns.append({"role": "user", "content": content})
        prefixes.append(template(turns, True))
        marks.append(len(prefixes[-1]))
        turns.append({"role": "assistant", "content": "+"})
    text = template(turns, False) if turns else ""
    if not all(text.startswith(prefix) for prefix in prefixes):
        raise StepconfError(
            "the reward model's chat template changes earlier turns, so its steps cannot be read at once.",
            "Use the tokenizer that the model was published with.",
        )
    return Marked(text, marks)


def _appended(head: str, parts: Sequence[str], tail: str, between: str = "") -> Marked:
    text, marks = head, []
    for i, part in enumerate(parts):
        text += (between if i else "") + part
        marks.append(len(text))
    return Marked(text + tail, marks)


_PLUS_MINUS = ("+", "-")
FORMS = {
    "qwen": Form("qwen", None, qwen),
    "math-shepherd": Form("math-shepherd", _PLUS_MINUS, math_shepherd),
    "rlhflow": Form("rlhflow", _PLUS_MINUS, rlhflow),
}
_BY_NAME = (("qwen2.5-math", "qwen"), ("math-shepherd", "math-shepherd"), ("rlhflow", "rlhflow"))


def form_of(name: Literal["auto", "qwen", "math-shepherd", "rlhflow"], model: str) -> Form:
    """The form by its name, or (auto) by the name of a published model.

    Raises:
        StepconfError: auto, and the model's name says nothing.
    """
    if name != "auto":
        return FORMS[name]
    for part, form in _BY_NAME:
        if part in model.lower():
            return FORMS[form]
    raise StepconfError(
        f"no form is known for the reward model {model!r}.", f"Add --set verify.prm.form={'|'.join(FORMS)}"
    )


def open_prm(prm: PrmRecipe, stack: ExitStack) -> PrmVerifier:
    """The process reward model; `stack` ends its engine.

    Raises:
        StepconfError: none is named, its form is not known or does not fit its engine, or it cannot be loaded.
    """
    if not prm.model:
        raise StepconfError(
            "no process reward model is named.", "Add --set verify.prm.model=Qwen/Qwen2.5-Math-PRM-7B, say."
        )
    form = form_of(prm.form, prm.model)
    if prm.engine == "vllm" and form.tokens is not None:
        raise StepconfError(
            f"the form {form.name!r} reads a language model's logits, which vLLM's pooling does not give.",
            "Leave out verify.prm.engine, or choose transformers.",
        )
    return PrmVerifier(_reader(prm, form, stack), form, shown_model(prm.model), prm.threshold)


PRM = Verifier(lambda setup: open_prm(setup.recipe.verify.prm, setup.stack), runs_model=True)


def _reader(prm: PrmRecipe, form: Form, stack: ExitStack) -> Reader:
    model = resolve_model(prm.model)
    if prm.engine == "vllm":
        from stepconf.engines.vllm_reward import PooledRewardModel

        pooled = PooledRewardModel(
            model,
            revision=prm.revision,
            dtype=prm.dtype,
            max_model_len=prm.max_model_len,
            options=prm.options,
        )
        return stack.enter_context(closing(pooled))
    from stepconf.engines.reward import RewardModel

    return RewardModel(
        model, form.tokens, revision=prm.revision, dtype=prm.dtype, max_model_len=prm.max_model_len
    )
