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
