"""The catalogue of everything `stepconf check` looks for, and the tally of what it found."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Severity = Literal["error", "warning"]
EXAMPLES = 3  # kept of each finding
_LONGEST = 160  # characters of one example

# In the order in which they are reported. An error makes the run unfit to publish; a warning is for a person
# to weigh.
CATALOGUE: dict[str, tuple[Severity, str]] = {
    "manifest": ("error", "a manifest is not readable, or its counts are not those of its shards"),
    "shard-missing": ("error", "a manifest names a shard that is not there"),
    "shard-size": ("error", "a shard has not the size that was written: truncated or replaced"),
    "shard-checksum": ("error", "a shard has not the bytes that were written"),
    "shard-unreadable": ("error", "a shard is not readable Parquet"),
    "shard-rows": ("error", "a shard has not the rows that its manifest says"),
    "shard-stray": ("warning", "a shard without a manifest: it does not count"),
    "incomplete": ("error", "the run is not finished"),
    "summary": ("warning", "summary.json is not that of these tables"),
    "schema": ("error", "a shard's columns are not those declared in schemas/"),
    "null": ("error", "a value is missing where the schema has none missing"),
    "value": ("error", "a value is not one of those the column may have"),
    "duplicate-id": ("error", "an id occurs twice"),
    "problem-id": ("error", "problem_id is not the content hash of problem and gold answer"),
    "orphan-step": ("error", "a step of no solution in its chunk"),
    "orphan-pair": ("error", "a pair of no solution in the run, or of no step of it"),
    "foreign-problem": ("error", "a row names another problem than its solution does"),
    "no-steps": ("error", "a solution without steps"),
    "step-count": ("error", "n_steps or step_index does not count the steps of the solution"),
    "char-spans": ("error", "the character spans do not divide the solution's text among its steps"),
    "step-text": ("error", "the texts of the steps do not join to the solution's text"),
    "token-spans": ("error", "the token spans do not divide the solution's tokens among its steps"),
    "token-ids": ("error", "the tokens of the steps are not those of the solution"),
    "list-lengths": ("error", "the token columns of one step differ in length"),
    "entropy-range": ("error", "an entropy is not in [0, ln V], or below that of the largest probability"),
    "logprob-range": ("error", "a log-probability is above 0 or above that of the most probable token"),
    "probability-range": ("error", "a largest probability is not in (0, 1]"),
    "token-range": ("error", "a token id is not in the vocabulary"),
    "aggregate": ("error", "a mean, sum, maximum or confidence is not that of its tokens"),
    "branch-parent": (
        "error",
        "a branch whose parent is not before it in its shard, is of another problem, or has no step branch_step",
    ),
    "branch-prompt": (
        "error",
        "a branch's prompt is not its parent's and the parent's tokens before branch_step",
    ),
    "prefix-id": ("error", "prefix_id is not the hash of the tokens before the step, or is missing"),
    "first-error": (
        "error",
        "is_first_error is not on the first step of its path that is labelled incorrect",
    ),
    "after-error": ("error", "after_error is not what the labels before the step on its path say"),
    "verdict": ("error", "a verifier speaks twice of one step, or its score or label is out of range"),
    "label-source": ("error", "a label that no verifier gave"),
    "noise": ("warning", "a label that relabel --noise flipped"),
    "pair-sides": ("error", "chosen and rejected are the same, or one of them has no tokens"),
    "secret": ("error", "what looks like a key, token or password (masked here)"),
    "leak": ("error", "a problem shares 13 words in a row (or, if shorter, all) with one of --against"),
    "personal": (
        "warning",
        "what looks like an e-mail address, a telephone number or a home folder (masked)",
    ),
    "duplicate-problem": ("warning", "the same problem twice but for case, spacing and punctuation"),
    "near-duplicate": ("warning", "two problems with the same numbers and nearly the same words"),
    "repeated-samples": ("warning", "most solutions repeat another of the same problem word for word"),
    "balance": ("warning", "of the decided steps fewer than 2 % are of one class, or none is decided at all"),
}


@dataclass
class Finding:
    """One kind of defect: how often, and the first examples."""

    check: str
    count: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def severity(self) -> Severity:
        """`error` or `warning`."""
        return CATALOGUE[self.check][0]

    @property
    def meaning(self) -> str:
        """What it is, in a line."""
        return CATALOGUE[self.check][1]

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "check": self.check,
            "severity": self.severity,
            "count": self.count,
            "meaning": self.meaning,
            "examples": self.examples,
        }


class Findings:
    """The tally."""

    def __init__(self) -> None:
        self._found: dict[str, Finding] = {}

    def add(self, check: str, *examples: str) -> None:
        """Each example is one more of this defect."""
        if not examples:
            return
        finding = self._found.setdefault(check, Finding(check))
        finding.count += len(examples)
        room = EXAMPLES - len(finding.examples)
        finding.examples += [_shown(example) for example in examples[: max(room, 0)]]

    def add_rows(self, check: str, wrong: np.ndarray, ids: Any, what: str = "") -> None:
        """Count the true values of the mask `wrong` (n,); `ids[i].as_py()` names row i.

        `what` is put after the id: the column that is wrong, say.
        """
        rows = np.flatnonzero(wrong)
        if len(rows) == 0:
            return
        named = [f"{_name(ids[int(row)])} {what}".strip() for row in rows[:EXAMPLES]]
        self.add(check, *named)
        self._found[check].count += len(rows) - len(named)

    def take(self, others: "Findings") -> None:
        """What was found elsewhere, after what is here."""
        for other in others.all():
            finding = self._found.setdefault(other.check, Finding(other.check))
            finding.count += other.count
            finding.examples += other.examples[: EXAMPLES - len(finding.examples)]

    def all(self) -> list[Finding]:
        """What was found, in the order of the catalogue."""
        return [self._found[check] for check in CATALOGUE if check in self._found]


def _name(value: Any) -> str:
    return str(value.as_py() if hasattr(value, "as_py") else value)


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def worst(findings: Iterable[Finding]) -> Severity | None:
    """The gravest severity among the findings; None where there are none."""
    severities = {finding.severity for finding in findings}
    return "error" if "error" in severities else "warning" if severities else None
