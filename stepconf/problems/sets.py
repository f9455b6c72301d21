"""The named problem sets: one entry each, from the set's name to where it lies and how its rows are read.

In `problem` and `answer`, `{column}` stands for a column's value, `{one|other}` for the first of these
columns that the file has, `{column?}` for one that may be missing or empty. A list is written as lettered
options, a table (`{"columns": [...], "data": [...]}`) as a Markdown table.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from stepconf.core.answers import AnswerType


@dataclass(frozen=True)
class NamedSet:
    """Where a set lies on the Hub and how one of its rows becomes a problem.

    `split` is the one that is read unless another is asked for; `splits` are all there are. `answer` of a
    `code` set is the tests that decide. `worked` says that the answer column is a worked solution, from
    which the final answer (`#### 18`, the last `\\boxed{18}`) is taken. `file` names the data file where
    the Hub repository holds others beside it or a loading script. `only` keeps the rows whose column has
    one of the given values; a file without that column is kept whole. `leave_out` names columns that are
    not carried along in `extra`.
    """

    hub_id: str
    split: str
    problem: str
    answer: str
    answer_type: AnswerType
    licence: str
    splits: tuple[str, ...] = ()
    config: str | None = None
    id: str = "unique_id|id"
    worked: bool = False
    file: str | None = None
    only: tuple[str, frozenset[str]] | None = None
    leave_out: tuple[str, ...] = ()

    @property
    def all_splits(self) -> tuple[str, ...]:
        """Every split that can be asked for."""
        return self.splits or (self.split,)


NAMED_SETS: Mapping[str, NamedSet] = {
    # Word problems and school mathematics
    "gsm8k": NamedSet(
        hub_id="openai/gsm8k",
        config="main",
        split="test",
        splits=("train", "test"),
        problem="{question}",
        answer="{answer}",
        answer_type="number",
        worked=True,
        licence="MIT",
    ),
    "svamp": NamedSet(
        hub_id="ChilleD/SVAMP",
        split="test",
        splits=("train", "test"),
        problem="{Body} {Question}",
        answer="{Answer}",
        answer_type="number",
        id="ID",
        licence="MIT",
    ),
    "math": NamedSet(
        hub_id="DigitalLearningGmbH/MATH-lighteval",
        split="test",
        splits=("train", "test"),
        problem="{problem}",
        answer="{answer|solution}",
        answer_type="math",
        licence="MIT",
    ),
    "math500": NamedSet(
        hub_id="HuggingFaceH4/MATH-500",
        split="test",
        problem="{problem}",
        answer="{answer|solution}",
        answer_type="math",
        licence="MIT",
    ),
    # Competitions and university mathematics
    "aime24": NamedSet(
        hub_id="HuggingFaceH4/aime_2024",
        split="train",
        problem="{problem|question}",
        answer="{answer|solution}",
        answer_type="math",
        licence="public contest",
    ),
    "aime25": NamedSet(
        hub_id="math-ai/aime25",
        split="test",
        problem="{problem|question}",
        answer="{answer|solution}",
        answer_type="math",
        licence="Apache-2.0",
    ),
    "amc23": NamedSet(
        hub_id="math-ai/amc23",
        split="test",
        problem="{problem|question}",
        answer="{answer}",
        answer_type="math",
        licence="public contest",
    ),
    "minerva_math": NamedSet(
        hub_id="math-ai/minervamath",
        split="test",
        problem="{problem|question}",
        answer="{answer|solution}",
        answer_type="math",
        id="idx|id",
        licence="MIT OpenCourseWare, CC BY-NC-SA 4.0",
    ),
    "olympiadbench": NamedSet(
        hub_id="Hothan/OlympiadBench",
        config="OE_TO_maths_en_COMP",
        split="train",
        problem="{context?}\n\n{question}",
        answer="{final_answer}",
        answer_type="math",
        licence="Apache-2.0",
    ),
    # Outside mathematics
    "mmlu_pro_stem": NamedSet(
        hub_id="TIGER-Lab/MMLU-Pro",
        split="test",
        splits=("validation", "test"),
        problem="{question}\n\n{options}",
        answer="{answer}",
        answer_type="choice",
        id="question_id",
        only=(
            "category",
            frozenset({"math", "physics", "chemistry", "biology", "engineering", "computer science"}),
        ),
        licence="Apache-2.0",
    ),
    "race": NamedSet(
        hub_id="ehovy/race",
        config="all",
        split="test",
        splits=("train", "validation", "test"),
        problem="{article}\n\n{question}\n\n{options}",
        answer="{answer}",
        answer_type="choice",
        id="example_id",
        licence="non-commercial research only",
    ),
    "boardgameqa": NamedSet(  # the form of BIG-Bench Extra Hard, whose question names the three answers
        hub_id="BBEH/bbeh",
        split="train",
        problem="{input}",
        answer="{target}",
        answer_type="string",
        only=("task", frozenset({"boardgame qa"})),
        licence="Apache-2.0",
    ),
    "strategyqa": NamedSet(
        hub_id="ChilleD/StrategyQA",
        split="test",
        splits=("train", "test"),
        problem="{question}",
        answer="{answer}",
        answer_type="yesno",
        id="qid",
        licence="MIT",
    ),
    "tablebench": NamedSet(  # the two kinds whose answers are short facts: the rest is prose and charts
        hub_id="Multilingual-Multimodal-NLP/TableBench",
        split="test",
        file="TableBench.jsonl",
        problem="{table}\n\n{question}",
        answer="{answer}",
        answer_type="string",
        only=("qtype", frozenset({"NumericalReasoning", "FactChecking"})),
        licence="Apache-2.0",
    ),
    # Code
    "cruxeval": NamedSet(
        hub_id="cruxeval-org/cruxeval",
        split="test",
        problem="{code}\n\nWhat does f({input?}) return?",
        answer="{output}",
        answer_type="literal",
        licence="MIT",
    ),
    "humaneval": NamedSet(
        hub_id="openai/openai_humaneval",
        split="test",
        problem="{prompt}",
        answer="{test}\n\ncheck({entry_point})",
        answer_type="code",
        id="task_id",
        licence="MIT",
    ),
    "livecodebench": NamedSet(  # the private tests are pickled on the Hub and are never opened
        hub_id="livecodebench/code_generation_lite",
        split="test",
        file="test*.jsonl",
        problem="{question_content}\n\n{starter_code?}",
        answer="{public_test_cases}",
        answer_type="code",
        id="question_id",
        leave_out=("private_test_cases",),
        licence="CC",
    ),
}
