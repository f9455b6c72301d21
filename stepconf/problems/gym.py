"""Problems made by reasoning-gym: `reasoning-gym:task?key=value&key=value`, the same for the same seed."""

import dataclasses
import re
import sys
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any
from urllib.parse import unquote

from stepconf.core.documents import read_json
from stepconf.errors import StepconfError
from stepconf.problems.files import Row
from stepconf.problems.rows import Source

_SIZE = 500  # problems where neither `size` nor a limit is given
_NUMBER = re.compile(r"[+-]?\d[\d,]*(\.\d+)?")


def gym_source(name: str, tasks: Mapping[str, tuple[Any, Any]], seed: int, limit: int | None) -> Source:
    """The rows of a task: `problem`, `answer`, `answer_type` and everything in the entry's metadata.

    Args:
        name: `reasoning-gym:task`, with the task's settings after a question mark, as in a URL. A list is
            written with commas or as JSON.
        tasks: reasoning-gym's own table, from a task to its data set and configuration classes.
        seed: the generator's, unless `name` sets one.
        limit: also bounds how many problems are made.

    Raises:
        StepconfError: unknown task, unknown setting, or a value that the task refuses.
    """
    spec = name.partition(":")[2]
    task, _, query = spec.partition("?")
    if task not in tasks:
        close = get_close_matches(task, tasks, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(close)}?" if close else f"Its tasks: {', '.join(sorted(tasks))}."
        raise StepconfError(f"reasoning-gym has no task {task!r}.", hint)
    dataset_class, config_class = tasks[task]
    settings = _settings(task, query, config_class)
    settings.setdefault("seed", seed)
    settings.setdefault("size", max(_SIZE, 10 * (limit or 0)))  # items are made as they are read
    where = f"reasoning-gym:{task}"
    size = settings["size"]
    if type(size) is not int or size > sys.maxsize:  # a task checks neither
        raise StepconfError(
            f"{where}: size={size!r} is no number of problems.", "Give a whole number: size=1000"
        )
    try:
        config = config_class(**settings)
        config.validate()
        dataset = dataset_class(config)
    except (AssertionError, TypeError, ValueError, AttributeError, KeyError, ImportError) as error:
        raise StepconfError(f"{where}: its settings are refused ({error}).", f"Given: {settings}") from error
    return Source(_rows(dataset, where), where, where, "", generated=True)


def _settings(task: str, query: str, config_class: Any) -> dict[str, Any]:
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    settings: dict[str, Any] = {}
    for pair in filter(None, query.split("&")):
        key, equals, text = pair.partition("=")
        if key not in fields or not equals:
            close = get_close_matches(key, fields, n=1)
            hint = f"Did you mean {close[0]}=…? " if close else ""
            raise StepconfError(
                f"reasoning-gym:{task} has no setting {key!r} (in {pair!r}).",
                f"{hint}Its settings: {', '.join(fields)}.",
            )
        text = unquote(text)
        try:
            settings[key] = read_json(text.lower() if text in {"True", "False"} else text)
        except ValueError:
            settings[key] = text.split(",") if "list" in str(fields[key].type) else text
    return settings


def _rows(dataset: Any, where: str) -> Iterator[Row]:
    category = type(dataset).__module__.split(".")[1]
    for index in range(len(dataset)):
        try:
            item = dataset[index]
        except (AssertionError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise StepconfError(
                f"{where}: making problem {index} failed ({type(error).__name__}: {error}).",
                "Try other settings after the `?`.",
            ) from error
        answer = item["answer"]
        is_number = answer is not None and _NUMBER.fullmatch(str(answer))
        kind = "number" if is_number else "math" if category in {"algebra", "arithmetic"} else "string"
        yield {**item["metadata"], "problem": item["question"], "answer": answer, "answer_type": kind}
