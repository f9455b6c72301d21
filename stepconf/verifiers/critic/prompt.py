"""What a critic is asked. Pure, but for `read_prompt`.

The solution is hostile text. Its markers carry a key hashed from problem and solution, which the solution
cannot contain, so it cannot close its own part or open another; control tokens of chat templates are broken
up by a space. What this does not stop: a solution that *persuades* the model. A critic's word is an opinion;
`stepconf audit` measures it, `symbolic` and `final` do not read prose.
"""

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from stepconf.core.ids import content_id
from stepconf.errors import StepconfError
from stepconf.verifiers.critic.replies import valid

REQUIRED = ("key", "problem", "steps")
OPTIONAL = ("n_steps", "last_step")
# <|im_end|> (or with full-width bars), </s>, <start_of_turn>, [INST]: a space after the bracket unmakes it.
_CONTROL = re.compile(r"<(?=[|\uff5c/!]?[A-Za-z_|\uff5c])|\[(?=/?[A-Z_]{3,}\])")


def read_prompt(name: str) -> str:
    """The text of a prompt: one that comes with stepconf, by name, or a file.

    Raises:
        StepconfError: there is no such prompt.
    """
    shipped = files("stepconf") / "prompts"
    names = sorted(Path(entry.name).stem for entry in shipped.iterdir() if entry.name.endswith(".txt"))
    if name in names:
        return (shipped / f"{name}.txt").read_text(encoding="utf-8")
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise StepconfError(
            f"there is no prompt {name!r}.", f"Give a text file, or one of: {', '.join(names)}."
        ) from error


def check_prompt(prompt: str) -> None:
    """Raise StepconfError where a prompt file lacks a field, or has an unknown one."""
    template = Template(prompt)
    found = set(template.get_identifiers()) if template.is_valid() else set()
    if not set(REQUIRED) <= found <= {*REQUIRED, *OPTIONAL}:
        raise StepconfError(
            f"the critic's prompt has the fields {sorted(found)}.",
            "It needs $key, $problem and $steps, may have $n_steps and $last_step, and writes a dollar as $$.",
        )


def render(prompt: str, problem: str, steps: Sequence[str]) -> str:
    """The prompt with problem and steps filled in, each between marker lines that carry the key."""
    key = content_id(problem, *steps)[:12]
    parts = [
        f"===== step {i} {key} =====\n{defused(text)}\n===== end {key} =====" for i, text in enumerate(steps)
    ]
    return Template(prompt).substitute(
        key=key,
        problem=defused(problem),
        steps="\n".join(parts),
        n_steps=len(steps),
        last_step=len(steps) - 1,
    )


def defused(text: str) -> str:
    """The text without anything that a tokenizer would read as a control token, and valid Unicode."""
    return _CONTROL.sub(lambda found: found[0] + " ", valid(text)).strip()
