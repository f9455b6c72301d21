"""What the command line shows of a recipe's fields."""

import ast
import inspect
import sys
from functools import cache
from itertools import pairwise
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from stepconf.recipe import Recipe


def field_of(key: str) -> FieldInfo:
    """The field of a dotted key."""
    model, name = _place_of(key)
    return model.model_fields[name]


def first_sentence(key: str) -> str:
    """The first sentence of the docstring under a dotted key's field; one that has none raises `KeyError`.

    Read from the source when it is wanted: pydantic's `use_attribute_docstrings` reads it at each import, in twice
    the time that the import takes without.
    """
    model, name = _place_of(key)
    declares = next(base for base in model.__mro__ if name in vars(base).get("__annotations__", {}))
    text = _docstrings(declares.__module__)[declares.__name__, name]
    return " ".join(text.split()).partition(". ")[0].removesuffix(".") + "."


@cache
def _docstrings(module: str) -> dict[tuple[str, str], str]:
    """The docstrings of fields in a module, by class and field."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {
        (model.name, ast.unparse(field.target)): str(text.value.value)
        for model in tree.body
        if isinstance(model, ast.ClassDef)
        for field, text in pairwise(model.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def _place_of(key: str) -> tuple[type[BaseModel], str]:
    *groups, name = key.split(".")
    model: Any = Recipe
    for group in groups:
        model = model.model_fields[group].annotation
    return model, name
