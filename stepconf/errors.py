"""What can go wrong in a way that the user can mend: one class, printed in one place (`cli.main`)."""


class StepconfError(Exception):
    """A user-facing error: what is wrong with the value seen, and what to type next.

    Args:
        problem: one sentence, with the value that was seen.
        hint: what to do or type next; empty where there is nothing to add.
    """

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.problem}\n{self.hint}" if self.hint else self.problem


_TRUST_HINT = (
    "Read the code, then turn it on where a recipe is taken: --set engine.trust_remote_code=true; or give a model "
    "that needs none."
)


def model_not_found(model: str, error: Exception, code_hint: str = _TRUST_HINT) -> StepconfError:
    """The message for a model that cannot be loaded, also where it would need Python code of its own.

    Args:
        model: what was to be loaded.
        error: what the library raised.
        code_hint: what to do where the model's own code would have to run.
    """
    text = str(error).strip() or type(error).__name__
    if "trust_remote_code" in text:
        return StepconfError(
            f"cannot load the model {model!r}: it brings Python code of its own, which does not run unasked.",
            code_hint,
        )
    hint = "Give a Hub id (org/name), a local folder with config.json, or `demo`."
    if "out of memory" in text:
        hint = "Free the memory of the device, or give a smaller model."
    return StepconfError(f"cannot load the model {model!r}: {text.splitlines()[0]}", hint)


def first_line(error: Exception) -> str:
    """What an error of another's code says in its first line, or what it is."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
