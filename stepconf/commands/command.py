"""Commands: a function, the recipe keys that are its options, and examples.

Name, type, help and default of such an option come from the field of the recipe. Typer gets them when the command is
asked for, so that `stepconf --help` does not import the recipe.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, Signature, getdoc, signature
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

import typer
from typer.core import TyperCommand

from stepconf.commands.options import Opened, RecipeFile, Sets, names_of
from stepconf.stores.places import Use

# Options that are not called as the last part of their key is.
NAMES = {
    "problems.source": "problems",
    "engine.name": "engine",
    "branch.where": "branch",
    "verify.verifiers": "verify",
    "ray.address": "ray",
}
METAVARS = {"problems.source": "SET|FILE|HUB_ID"}
LONGEST_CHOICES = 32


@dataclass(frozen=True)
class Command:
    """A command of `stepconf`; `command` makes them.

    `defaults`: values of recipe keys that hold where neither options nor the recipe's file say other.
    """

    body: Callable[..., None]
    keys: tuple[str, ...]
    examples: tuple[str, ...]
    defaults: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What one types after `stepconf`."""
        return self.body.__name__

    @property
    def summary(self) -> str:
        """The first line of its help."""
        return (getdoc(self.body) or "").partition("\n")[0]

    def built(self) -> TyperCommand:
        """The command as Typer runs it."""
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        register = app.command(self.name, cls=_Shown, epilog="\n".join(self.examples))
        register(_with_options(self) if self.keys else self.body)
        return cast(TyperCommand, typer.main.get_command(app))


def command(
    *keys: str, example: str | tuple[str, ...], defaults: Mapping[str, Any] | None = None
) -> Callable[[Callable[..., None]], Command]:
    """Make a function a command.

    Args:
        keys: recipe keys that are options, in the order of `--help`. If there are any, the function's parameter
            `recipe` gets the checked recipe; these options are in its place, `--recipe` and `--set` at the end.
        example: what one may type, or several such lines.
        defaults: as in `Command`.
    """
    examples = (example,) if isinstance(example, str) else example
    return lambda body: Command(_with_opened(body), keys, examples, defaults or {})


def typed_options(ctx: typer.Context) -> list[str]:
    """The options that the user typed, as `--help` calls them."""
    options = [one for one in ctx.command.params if one.param_type_name == "option"]
    sources = {one.opts[0]: ctx.get_parameter_source(one.name or "") for one in options}
    return [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]


def option_name(key: str) -> str:
    """The option of a recipe key, e.g. `--max-tokens` of sampling.max_tokens."""
    return "--" + NAMES.get(key, key.rpartition(".")[2]).replace("_", "-")


def _with_opened(body: Callable[..., None]) -> Callable[..., None]:
    """A command's function that gets paths, opened, for parameters that are `Opened`."""
    parameters = signature(body).parameters.values()
    uses = {
        parameter.name: mark.use
        for parameter in parameters
        for mark in getattr(parameter.annotation, "__metadata__", ())
        if isinstance(mark, Opened)
    }

    @wraps(body)
    def run(**values: Any) -> None:
        from stepconf.stores.opening import opened

        with ExitStack() as stack:

            def path_of(given: Any, use: Use) -> Any:
                if isinstance(given, tuple):
                    return tuple(path_of(one, use) for one in given)
                return None if given is None else stack.enter_context(opened(given, use))

            body(**values | {name: path_of(values[name], use) for name, use in uses.items()})

    return run if uses else body


def _with_options(command: Command) -> Callable[..., None]:
    """The command's function as Typer sees it: with an option for each key instead of the recipe."""
    from stepconf.recipe import load_recipe

    options = {option_name(key)[2:].replace("-", "_"): _option(key, command.defaults) for key in command.keys}
    own = {name: one for name, one in signature(command.body).parameters.items() if name != "recipe"}

    def run(**values: Any) -> None:
        given = {key: values.pop(name) for name, key in zip(options, command.keys, strict=True)}
        recipe = load_recipe(values.pop("recipe"), given, values.pop("sets"), command.defaults)
        command.body(**values, recipe=recipe)

    parameters: list[Parameter] = []
    for name in signature(command.body).parameters:
        parameters += [own[name]] if name in own else map(_not_given, options, options.values())
    parameters += [_not_given("recipe", RecipeFile), _not_given("sets", Sets)]
    run.__doc__ = command.body.__doc__
    run.__signature__ = Signature(  # type: ignore[attr-defined]  # inspect looks there
        [one.replace(kind=Parameter.KEYWORD_ONLY) for one in parameters]
    )
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def _not_given(name: str, option: Any) -> Parameter:
    """The parameter of an option that is None by default, so that the value in the recipe's file holds."""
    return Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=option)


def _option(key: str, defaults: Mapping[str, Any]) -> Any:
    """The annotation of a recipe key's option.

    Names and choices are read as text: the recipe checks them and says what there is.
    """
    from stepconf.recipe.fields import field_of, first_sentence

    field = field_of(key)
    kind = _type_of(field.annotation)
    read = kind if kind in (bool, int, float) else str
    default = _shown(defaults.get(key, field.get_default()))
    option = typer.Option(
        option_name(key),
        metavar=METAVARS.get(key) or _metavar(key, kind),
        help=first_sentence(key) + (f"  [default: {default}]" if default else ""),
        parser=names_of if get_origin(kind) is list else None,
    )
    return Annotated[read | None, option]


def _type_of(annotation: Any) -> Any:
    """The type of a field's values apart from None."""
    if get_origin(annotation) in (Union, UnionType):
        [annotation] = [one for one in get_args(annotation) if one is not NoneType]
    return annotation


def _metavar(key: str, kind: Any) -> str | None:
    """What stands for the value in `--help`: the choices where they are few, else a word of the key."""
    if kind in (bool, int, float):
        return {int: "N", float: "X"}.get(kind)
    choices = "|".join(get_args(kind)) if get_origin(kind) is Literal else ""
    return choices if 0 < len(choices) < LONGEST_CHOICES else re.split("[._]", key)[-1].upper()


def _shown(default: Any) -> str:
    """A default as one would type it; empty where the help says what happens without a value."""
    if isinstance(default, list):
        return ",".join(default) or "none"
    return "" if default in (None, False) else str(default)


class _Shown(TyperCommand):
    """A command whose `--help` names arguments without their Python types and ends with its examples."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        rows: dict[str, list[tuple[str, str]]] = {"argument": [], "option": []}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                named = parameter.param_type_name == "argument" and parameter.metavar
                rows[parameter.param_type_name].append((named or record[0], record[1]))
        for title, kind in (("Arguments", "argument"), ("Options", "option")):
            if rows[kind]:
                with formatter.section(title):
                    formatter.write_dl(rows[kind])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        examples = (self.epilog or "").splitlines()
        with formatter.section("Example" if len(examples) == 1 else "Examples"):
            for example in examples:
                for line in folded(example, formatter.width - 4):
                    formatter.write(f"  {line}\n")


def folded(example: str, width: int) -> list[str]:
    """A command in lines that a shell joins again, broken before options; a longer option stays whole."""
    lines: list[str] = []
    for part in re.split(r" (?=--)", example):
        if lines and len(lines[-1]) + len(part) < width:
            lines[-1] += f" {part}"
        else:
            lines.append(f"    {part}" if lines else part)
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]
