"""Read the file of a fitted confidence, as `stepconf calibrate RUN --fit FILE` writes it."""

from hashlib import blake2b
from pathlib import Path

from stepconf.core.confidence import FittedConfidence
from stepconf.core.documents import read_object
from stepconf.errors import StepconfError
from stepconf.recipe import Recipe
from stepconf.stores.opening import located


def confidence_digest(recipe: Recipe) -> dict[str, str]:
    """What says, beside a recipe, which fit its `confidence` names: the file may be written anew. {} without one."""
    if recipe.confidence is None:
        return {}
    data = _bytes_of(located(recipe.confidence))
    return {"confidence_digest": blake2b(data, digest_size=12).hexdigest()}


def load_confidence(path: str | Path, model: str, force: bool = False) -> FittedConfidence:
    """The fitted confidence of a file, for tokens of `model`.

    Args:
        path: the JSON file.
        model: whose tokens it will be asked about; as the recipe names it.
        force: take a file that was fitted on another model's tokens.

    Raises:
        StepconfError: there is no such file, it is no confidence file, or it is of another model and not forced.
    """
    try:
        document = read_object(_bytes_of(path))
    except ValueError as error:
        raise StepconfError(
            f"{path} is no confidence file: {error}.", "Fit one: stepconf calibrate RUN --fit confidence.json"
        ) from error
    try:
        fitted = FittedConfidence.of_document(document)
    except StepconfError as error:
        raise StepconfError(f"{path}: {error.problem}", error.hint) from error
    if fitted.model != model and not force:
        raise StepconfError(
            f"{path} was fitted on tokens of the model {fitted.model!r}, not {model!r}.",
            "Fit one on a run of this model, or take it as it is: --set confidence_force=true",
        )
    return fitted


def _bytes_of(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise StepconfError(
            f"{path}: no confidence file: {error.strerror or error}.",
            "Fit one: stepconf calibrate RUN --fit confidence.json",
        ) from error
