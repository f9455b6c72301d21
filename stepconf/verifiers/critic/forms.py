"""The forms in which a critic is asked and answers: one table, `verify.critic.form`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stepconf.verifiers.critic import index_form, json_form, step_form
from stepconf.verifiers.critic.replies import Opinion


@dataclass(frozen=True, slots=True)
class CriticForm:
    """A prompt and the parser of its replies.

    Args:
        prompt: name of the prompt file in `stepconf/prompts`; `prompt.render` fills in problem and steps.
        reminder: what is said to a reply that cannot be read; `{last}` is the index of the last step.
        parse: `parse(reply, n_steps)` gives an `Opinion`, or raises `BadReplyError`. Pure.
        schema: JSON Schema of a reply to so many steps, for models that can be held to one.
        by_step: each question is about one step, the last of those that it shows; else one is about all.
    """

    prompt: str
    reminder: str
    parse: Callable[[str, int], Opinion]
    schema: Callable[[int], dict[str, Any]] | None = None
    by_step: bool = False


FORMS: Mapping[str, CriticForm] = {
    "index": CriticForm("critic_index", index_form.REMINDER, index_form.parse),
    "json": CriticForm("critic_json", json_form.REMINDER, json_form.parse, json_form.schema),
    "step": CriticForm("critic_step", step_form.REMINDER, step_form.parse, by_step=True),
}
