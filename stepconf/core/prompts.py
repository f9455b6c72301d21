"""From a problem to the conversation or text that asks for its solution."""

from collections.abc import Sequence

# The zero-shot chain-of-thought instruction used for every evaluation in arXiv 2605.07353, in common form.
INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."

# In place of the one above, which asks for a box, where the answer is a program.
CODE_INSTRUCTION = "Write the complete Python code, with its imports, in one ```python block."


def instruction_for(answer_type: str) -> str:
    """The standing instruction for answers of a type."""
    return CODE_INSTRUCTION if answer_type == "code" else INSTRUCTION


def chat_messages(
    problem: str, instruction: str, system: str, shots: Sequence[tuple[str, str]]
) -> list[dict[str, str]]:
    """Messages that ask for a solution: system (if any), worked examples as turns, the problem."""
    messages = [{"role": "system", "content": system}] if system else []
    for shot_problem, shot_solution in shots:
        messages.append({"role": "user", "content": _with(shot_problem, instruction)})
        messages.append({"role": "assistant", "content": shot_solution})
    return [*messages, {"role": "user", "content": _with(problem, instruction)}]


def plain_prompt(problem: str, instruction: str, shots: Sequence[tuple[str, str]]) -> str:
    """Few-shot text for a model without a chat template; a solution ends at `PLAIN_STOP`."""
    head = f"{instruction}\n\n" if instruction else ""
    worked = "".join(f"Problem: {p}\nSolution:\n{s}\n\n" for p, s in shots)
    return f"{head}{worked}Problem: {problem}\nSolution:\n"


PLAIN_STOP = "\n\nProblem:"


def _with(problem: str, instruction: str) -> str:
    return f"{problem}\n{instruction}" if instruction else problem
