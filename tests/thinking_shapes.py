"""Shapes of what reasoning models write, and how a person would read them."""

from typing import NamedTuple

from stepconf.core.reasoning import BY_MARKS, Thinking

R, A = "reasoning", "answer"


class Shape(NamedTuple):
    """A solution of the problem `What is 5 + 7?` or like it.

    steps: part and stripped text of each. cut: at the token limit. endless: the thinking never ends.
    """

    name: str
    text: str
    answer: str | None
    steps: tuple[tuple[str, str], ...]
    thinking: Thinking = BY_MARKS
    cut: bool = False
    endless: bool = False


OPENED = Thinking("think", True)
HARMONY = "<|channel|>analysis<|message|>"
FINAL = "<|end|><|start|>assistant<|channel|>final<|message|>"
SHAPES = (
    Shape(
        "deepseek_and_qwen",
        "<think>\nMaybe \\boxed{10}?\n\nWait, 5 + 7 = 12.\n</think>\n\nThe answer is \\boxed{12}.", "12",
        ((R, "<think>\nMaybe \\boxed{10}?"), (R, "Wait, 5 + 7 = 12.\n</think>"), (A, "The answer is \\boxed{12}.")),
    ),
    Shape(
        "opened_by_the_template", "5 + 7 = 13.\n\nHmm, 5 + 7 = 12.\n</think>\n\nThe answer is 12.", "12",
        ((R, "5 + 7 = 13."), (R, "Hmm, 5 + 7 = 12.\n</think>"), (A, "The answer is 12.")), OPENED,
    ),
    Shape(
        "opened_twice", "<think>\n5 + 7 = 12.\n</think>\nThe answer is 12.", "12",
        ((R, "<think>\n5 + 7 = 12.\n</think>"), (A, "The answer is 12.")), OPENED,
    ),
    Shape(
        "opening_mark_in_the_prompt_of_a_file", "maybe \\boxed{10}</think>\n\nThe answer is 12.", "12",
        ((R, "maybe \\boxed{10}</think>"), (A, "The answer is 12.")),
    ),
    Shape(
        "thinking", "<thinking>\n5 + 7 = 12\n</thinking>\n\\boxed{12}", "12",
        ((R, "<thinking>\n5 + 7 = 12\n</thinking>"), (A, "\\boxed{12}")),
    ),
    Shape(
        "magistral", "[THINK]5 + 7 is 12, or \\boxed{10}.[/THINK]The answer is 12.", "12",
        ((R, "[THINK]5 + 7 is 12, or \\boxed{10}.[/THINK]"), (A, "The answer is 12.")),
    ),
    Shape(
        "harmony", f"{HARMONY}5 + 7 is 12.{FINAL}The answer is 12.<|return|>", "12",
        ((R, f"{HARMONY}5 + 7 is 12.{FINAL}"), (A, "The answer is 12.<|return|>")),
    ),
    Shape(
        "harmony_without_special_tokens", "analysisWe add 5 and 7: 10?assistantfinalThe answer is 12.", "12",
        ((R, "analysisWe add 5 and 7: 10?assistantfinal"), (A, "The answer is 12.")),
    ),
    Shape(
        "harmony_cut", f"{HARMONY}5 + 7 is \\boxed{{12}}", None, ((R, f"{HARMONY}5 + 7 is \\boxed{{12}}"),),
        cut=True, endless=True,
    ),
    Shape(
        "gemma", "<|channel>thought\n5 + 7 = 12.\n<channel|>The answer is 12.", "12",
        ((R, "<|channel>thought\n5 + 7 = 12.\n<channel|>"), (A, "The answer is 12.")),
    ),
    Shape(
        "glm_with_a_box_of_its_own", "<think>5 + 7 = 12</think>\n<answer>12</answer>", "12",
        ((R, "<think>5 + 7 = 12</think>"), (A, "<answer>12</answer>")),
    ),
    Shape(
        "kimi", "◁think▷5 + 7 = 12◁/think▷The answer is 12.", "12",
        ((R, "◁think▷5 + 7 = 12◁/think▷"), (A, "The answer is 12.")),
    ),
    Shape(
        "seed", "<seed:think>5 + 7 = 12</seed:think>The answer is 12.", "12",
        ((R, "<seed:think>5 + 7 = 12</seed:think>"), (A, "The answer is 12.")),
    ),
    Shape(
        "empty", "<think>\n\n</think>\n\nThe answer is 12.", "12",
        ((A, "<think>\n\n</think>\n\nThe answer is 12."),),
    ),
    Shape(
        "never_ends", "<think>\nSo \\boxed{12}.\n\nWait, let me check", None,
        ((R, "<think>\nSo \\boxed{12}."), (R, "Wait, let me check")), cut=True, endless=True,
    ),
    Shape("never_ends_after_the_template", "So \\boxed{12}.", None, ((R, "So \\boxed{12}."),), OPENED, True, True),
    Shape(
        "ends_twice", "<think>\nIt is 10.\n</think>\n\nNo: 5 + 7 = 12.\n</think>\n\nThe answer is 12.", "12",
        ((R, "<think>\nIt is 10.\n</think>"), (R, "No: 5 + 7 = 12.\n</think>"), (A, "The answer is 12.")),
    ),
    Shape(
        "ends_again_at_the_end", "<think>\n5 + 7 = 12.\n</think>\n\nThe answer is \\boxed{12}.\n</think>", "12",
        ((R, "<think>\n5 + 7 = 12.\n</think>"), (A, "The answer is \\boxed{12}.\n</think>")),
    ),
    Shape(
        "opened_and_ended_again",
        "<think>\n5 + 7 = 12.\n</think>\n\nThe answer is 12.\n\n<think>\nThat is done.\n</think>", "12",
        ((R, "<think>\n5 + 7 = 12.\n</think>"), (A, "The answer is 12."),
         (A, "<think>\nThat is done.\n</think>")),
    ),
    Shape(
        "marks_in_code", "```\n<think>5</think>\n```\nThe code shows the marks. The answer is 12.", "12",
        ((A, "```\n<think>5</think>\n```"), (A, "The code shows the marks."), (A, "The answer is 12.")),
    ),
    Shape(
        "a_fence_left_open", "<think>\n```python\nprint(5 + 7)\n</think>\n\nThe answer is 12.", "12",
        ((R, "<think>\n```python\nprint(5 + 7)\n</think>"), (A, "The answer is 12.")),
    ),
    Shape(
        "nothing_but_thinking", "<think>\n5 + 7 = 12.\n</think>\n<|im_end|>", None,
        ((R, "<think>\n5 + 7 = 12.\n</think>\n<|im_end|>"),),
    ),
    Shape("no_thinking", "5 + 7 = 12.\n\nThe answer is 12.", "12", ((A, "5 + 7 = 12."), (A, "The answer is 12."))),
)  # fmt: skip
