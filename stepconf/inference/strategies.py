"""The strategies by name."""

from stepconf.inference.base import Question, Search, Setting
from stepconf.inference.tree import beam, cat
from stepconf.inference.whole import diverse, one, sampled

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


def search(strategy: str, question: Question, setting: Setting) -> Search:
    """The strategy's search for one question.

    Raises:
        ValueError: there is no such strategy (`recipe.STRATEGIES` lists them).
    """
    match strategy:
        case "greedy" | "cot":
            return one(strategy, question, setting)
        case "self-consistency" | "best-of-n" | "deepconf":
            return sampled(strategy, question, setting)
        case "dipt":
            return diverse(strategy, question, setting)
        case "beam":
            return beam(strategy, question, setting)
        case "cat":
            return cat(strategy, question, setting)
    raise ValueError(f"no strategy {strategy!r}")
