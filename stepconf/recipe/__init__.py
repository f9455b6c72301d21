"""Everything that decides what a run contains, as one checked model of `recipes/*.yaml`.

Options of the command line, `--set key=value` and the file end up here; the resolved recipe lies in the run.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from stepconf.core.documents import read_yaml
from stepconf.core.reasoning import NAMES as FAMILY_NAMES
from stepconf.errors import StepconfError
from stepconf.kinds import is_own
from stepconf.recipe.base import Strict
from stepconf.recipe.dataset import (
    BranchRecipe,
    CriticRecipe,
    EngineRecipe,
    PrmRecipe,
    ProblemsRecipe,
    PromptRecipe,
    SamplingRecipe,
    SegmentRecipe,
    Shot,
    VerifyRecipe,
)
from stepconf.recipe.use import (
    EvaluationRecipe,
    InferRecipe,
    LoopRecipe,
    LoraRecipe,
    PairsRecipe,
    RayRecipe,
    ServeRecipe,
    StageRecipe,
    TrainRecipe,
)

__all__ = [
    "BranchRecipe",
    "CriticRecipe",
    "EngineRecipe",
    "EvaluationRecipe",
    "InferRecipe",
    "LoopRecipe",
    "LoraRecipe",
    "PairsRecipe",
    "PrmRecipe",
    "ProblemsRecipe",
    "PromptRecipe",
    "RayRecipe",
    "Recipe",
    "SamplingRecipe",
    "SegmentRecipe",
    "ServeRecipe",
    "Shot",
    "StageRecipe",
    "TrainRecipe",
    "VerifyRecipe",
    "identity",
    "known_keys",
    "load_recipe",
    "with_branches",
    "with_options",
    "with_policy_of",
    "with_trust",
]


class Recipe(Strict):
    """One run, whole."""

    model: str = ""
    """Hub id, local folder, URL, or demo (built in)."""
    model_revision: str | None = None
    confidence: str | None = None
    """File of a fitted confidence, as `calibrate --fit` writes it, to take in place of exp(-mean entropy)."""
    confidence_force: bool = False
    """Take it though it was fitted on the tokens of another model."""
    chunk: int = Field(64, ge=1)
    """Problems (or imported solutions) per shard: what a crash may cost."""
    reasoning: str = "auto"
    """Which tags enclose the thinking: auto (those of the chat template), none, or a family's. Families: think,
    thinking, reasoning, mistral, harmony, gemma, kimi, seed."""
    problems: ProblemsRecipe = ProblemsRecipe()
    engine: EngineRecipe = EngineRecipe()
    prompt: PromptRecipe = PromptRecipe()
    sampling: SamplingRecipe = SamplingRecipe()
    segment: SegmentRecipe = SegmentRecipe()
    branch: BranchRecipe = BranchRecipe()
    verify: VerifyRecipe = VerifyRecipe()
    pairs: PairsRecipe = PairsRecipe()
    train: TrainRecipe = TrainRecipe()
    loop: LoopRecipe = LoopRecipe()
    infer: InferRecipe = InferRecipe()
    serve: ServeRecipe = ServeRecipe()
    ray: RayRecipe = RayRecipe()

    @model_validator(mode="after")
    def _family_is_known(self) -> Self:
        if self.reasoning not in FAMILY_NAMES:
            raise StepconfError(
                f"unknown marks of thinking {self.reasoning!r}.", f"Choose from: {', '.join(FAMILY_NAMES)}."
            )
        return self


GENERATE_BUDGET = 6.0
# What changes how fast a run goes, but not what it contains; and what is decided after it.
_CONNECTION = {"base_url", "api_key_env", "concurrency", "timeout_s", "attempts", "patience_s"}
_NOT_IDENTITY = {
    "confidence_force": True,
    "engine": {"trust_remote_code", *_CONNECTION},
    "verify": {"workers": True, "critic": {*_CONNECTION, "placement"}},
    "pairs": True,
    "train": True,
    "loop": True,
    "infer": True,
    "serve": True,
    "ray": True,
}

# Which policy a run was made with; `engine.dtype` and `engine.max_model_len` too.
_POLICY = ("model", "model_revision", "reasoning", "prompt", "sampling")
_NOT_KEYS = {"command", "confidence_digest"}  # of what a run keeps beside the keys


_NOW_ROWS = "Other steps after the same tokens are rows of the run now: sample branches with --branch."
# Keys that earlier versions had: ignored in the recipe of a run, refused with this hint elsewhere.
RETIRED = {
    "pairs.candidates": _NOW_ROWS,
    "pairs.candidate_temperature": _NOW_ROWS,
    "pairs.candidate_max_tokens": _NOW_ROWS,
    "verify.rollout": "Completions are branches now: --set branch.n=8, branch.wave=4.",
}


def load_recipe(
    file: Path | None = None,
    options: Mapping[str, Any] | None = None,
    sets: list[str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Recipe:
    """A recipe from a YAML file, command-line options (None is "not given") and `key=value` strings.

    `defaults` are for keys of which none of them says anything, in place of the fields' own.

    Raises:
        StepconfError: the file is absent or not YAML, a key is unknown, or a value is out of its range.
    """
    values: dict[str, Any] = _read_yaml(file) if file else {}
    for key, value in (options or {}).items():
        if value is not None:
            _put(values, key, value)
    for assignment in sets or []:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise StepconfError(
                f"--set {assignment!r} has no '='.", "Write --set key=value, e.g. --set sampling.top_p=0.9"
            )
        try:
            _put(values, key.strip(), read_yaml(text))
        except ValueError as error:
            raise StepconfError(
                f"--set {assignment!r:.200}: the value is not YAML as it is read here: {error}",
                "Quote it: --set 'key=\"value\"'",
            ) from error
    for key, value in (defaults or {}).items():
        _put(values, key, value, over=False)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise _explained(error, file) from error


def with_options(recipe: Recipe, options: dict[str, Any]) -> Recipe:
    """The recipe with other values for some dotted keys; raises StepconfError as `load_recipe`."""
    values = recipe.model_dump()
    for key, value in options.items():
        _put(values, key, value)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise _explained(error, None) from error


def identity(recipe: Recipe) -> dict[str, Any]:
    """The part of a recipe that decides what a run contains, as plain values."""
    return recipe.model_dump(mode="json", exclude=_NOT_IDENTITY)  # type: ignore[arg-type]  # nested mapping


def with_branches(recipe: Recipe, command: str, has_gold: bool = True) -> Recipe:
    """The recipe with what `branch` leaves unset said for a command; `has_gold`: some problem has a gold answer."""
    where, budget, verifiers = recipe.branch.where, recipe.branch.budget, recipe.verify.verifiers
    if where is None and command == "generate":
        where = ["first-error", "uncertain"] if has_gold and verifiers else []
    elif where is None:
        where = ["first-error"] if "rollout" in verifiers else []
    if budget is None:
        budget = GENERATE_BUDGET if command == "generate" else float("inf")
    return recipe.model_copy(
        update={"branch": recipe.branch.model_copy(update={"where": where, "budget": budget})}
    )


def with_policy_of(recipe: Recipe, run: dict[str, Any]) -> Recipe:
    """The recipe with the model of another run's recipe, prompted and sampled as there.

    What runs the model here, with which options, at which address and with which key stays as `recipe` has it: others
    may have written the run.

    Raises:
        StepconfError: the run was made at a server or with an engine of somebody's own, which `recipe` does not name;
            or its recipe is none.
    """
    theirs = recipe_of({name: run[name] for name in (*_POLICY, "engine") if name in run})
    _check_engine_named(theirs, recipe)
    update = {name: getattr(theirs, name) for name in _POLICY if name in theirs.model_fields_set}
    loaded = {"dtype": theirs.engine.dtype, "max_model_len": theirs.engine.max_model_len}
    return recipe.model_copy(update=update | {"engine": recipe.engine.model_copy(update=loaded)})


def _check_engine_named(theirs: Recipe, mine: Recipe) -> None:
    name = theirs.engine.name
    if name == mine.engine.name:
        return
    if is_own(name):
        raise StepconfError(
            f"the run was made with the engine {name}, which is code that does not come with stepconf.",
            f"Read it, then add --engine {name}",
        )
    if name == "openai":
        raise StepconfError(
            "the run was made at a server (engine openai), and addresses and keys are not taken from a run.",
            f"Add --engine openai --set engine.base_url=URL; or --model {theirs.model}, which runs it here.",
        )


def recipe_of(run: dict[str, Any], trust_remote_code: bool = False) -> Recipe:
    """The recipe that a run keeps, as a recipe, without keys that are `RETIRED`; raises what `load_recipe` raises.

    Args:
        run: the content of its recipe.yaml, which others may have written.
        trust_remote_code: what the user says of it; what the run says does not count.
    """
    try:
        recipe = Recipe.model_validate(_without_retired({k: v for k, v in run.items() if k not in _NOT_KEYS}))
        return with_trust(recipe, trust_remote_code)
    except ValidationError as error:
        problem = _explained(error, None).problem
        raise StepconfError(f"in the recipe.yaml of a run: {problem}", "Write it as it was.") from error


def with_trust(recipe: Recipe, trust_remote_code: bool) -> Recipe:
    """The recipe with another `engine.trust_remote_code`."""
    engine = recipe.engine.model_copy(update={"trust_remote_code": trust_remote_code})
    return recipe.model_copy(update={"engine": engine})


def _without_retired(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    kept = {key: value for key, value in values.items() if f"{prefix}{key}" not in RETIRED}
    return {
        key: _without_retired(value, f"{prefix}{key}.") if isinstance(value, dict) else value
        for key, value in kept.items()
    }


def known_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> list[str]:
    """Every dotted key of a recipe."""
    keys = []
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            keys += known_keys(info.annotation, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        values = read_yaml(file.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise StepconfError(f"cannot read the recipe {file}: {error.strerror}.", "See recipes/.") from error
    except ValueError as error:
        raise StepconfError(f"{file} is not YAML as a recipe is: {error}", "See recipes/.") from error
    if not isinstance(values, dict):
        raise StepconfError(f"{file} holds a {type(values).__name__}, not keys and values.")
    return values


def _put(values: dict[str, Any], key: str, value: Any, over: bool = True) -> None:
    *path, last = key.split(".")
    for part in path:
        if values.get(part) is None:  # not there, or an empty group of a file
            values[part] = {}
        inner = values[part]
        if not isinstance(inner, dict):
            raise StepconfError(f"--set {key}: {part} is a value, not a group of keys.")
        values = inner
    if over or last not in values:
        values[last] = value


def _explained(error: ValidationError, file: Path | None) -> StepconfError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    where = f" in {file}" if file else ""
    if first["type"] == "extra_forbidden":
        if key in RETIRED:
            return StepconfError(f"recipe key {key!r}{where} is no longer there.", RETIRED[key])
        near = get_close_matches(key, known_keys(), n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Keys: {', '.join(known_keys())}"
        return StepconfError(f"unknown recipe key {key!r}{where}.", hint)
    return StepconfError(f"recipe key {key}{where}: {first['msg']}, got {first['input']!r:.200}.")
