"""Read the file of a fitted confidence, as `stepconf calibrate RUN --fit FILE` writes it."""

from pathlib import Path

from stepconf.core.confidence import FittedConfidence
from stepconf.core.documents import read_object
from stepconf.errors import StepconfError


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
        document = read_object(Path(path).read_bytes())
    except OSError as error:
        raise StepconfError(
            f"{path}: no confidence file: {error.strerror or error}.",
            "Fit one: stepconf calibrate RUN --fit confidence.json",
        ) from error
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
