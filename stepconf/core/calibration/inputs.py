"""What a calibration function accepts; everything else is refused with the values seen."""

from typing import Any

import numpy as np
import numpy.typing as npt

from stepconf.errors import StepconfError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_SHOWN = 3  # offending values quoted in a message


def as_scores(values: npt.ArrayLike, name: str = "scores") -> Floats:
    """One row of numbers, at least one, none of them NaN; infinities are legal ranks.

    Raises:
        StepconfError: it is empty, not one-dimensional, not numeric, or holds a NaN.
    """
    array = _row(values, name)
    _refuse(array, np.isnan(array), f"{name} must be numbers", "Leave out the rows without a value.")
    return array


def as_finite(values: npt.ArrayLike, name: str) -> Floats:
    """As `as_scores`, infinities refused too."""
    array = _row(values, name)
    _refuse(array, ~np.isfinite(array), f"{name} must be finite", "Leave out the rows without a value.")
    return array


def as_probabilities(values: npt.ArrayLike, name: str = "confidence") -> Floats:
    """One row of numbers in [0, 1].

    Raises:
        StepconfError: a value is not a probability. A raw entropy is refused here.
    """
    array = _row(values, name)
    hint = "An entropy is not a probability: map it first (exp(-entropy_mean)), or fit isotonic or Platt."
    _refuse(array, ~((array >= 0) & (array <= 1)), f"{name} must be a probability in [0, 1]", hint)
    return array


def as_correct(values: npt.ArrayLike, rows: int) -> Bools:
    """Correctness of `rows` items: booleans, or 0 and 1.

    Raises:
        StepconfError: something else, such as an unknown label (None), or another number of rows.
    """
    array = np.asarray(values)
    if array.dtype != np.bool_:
        legal = _is_zero_or_one(array.ravel())
        seen = ", ".join(repr(value) for value in array.ravel()[~legal][:_SHOWN].tolist())
        if seen:
            raise StepconfError(
                f"correct must be true or false; saw {seen} ({int((~legal).sum())} of {array.size} values).",
                "Leave out the items whose label is unknown.",
            )
    if array.shape != (rows,):
        raise StepconfError(f"correct must have one value per item, {rows}; its shape is {array.shape}.")
    return array.astype(np.bool_)


def as_weights(values: npt.ArrayLike | None, rows: int) -> Ints:
    """How many times each row counts, a non-negative integer each; None counts every row once.

    Raises:
        StepconfError: another dtype or number of rows, a negative number, or all zero.
    """
    if values is None:
        return np.ones(rows, dtype=np.int64)
    array = np.asarray(values)
    if array.shape != (rows,) or array.dtype.kind not in "iu":
        raise StepconfError(
            f"weights must be {rows} integers; they are {array.dtype} of shape {array.shape}.",
            "A weight says how many times its row counts.",
        )
    if (array < 0).any() or not array.any():
        raise StepconfError(
            f"weights must be non-negative, not all zero; they lie in [{array.min()}, {array.max()}]."
        )
    return array.astype(np.int64, copy=False)


def _is_zero_or_one(array: npt.NDArray[Any]) -> Bools:
    if array.dtype.kind in "iuf":
        return np.asarray((array == 0) | (array == 1))
    return np.array([value in (0, 1) for value in array.tolist()], dtype=bool)


def _row(values: npt.ArrayLike, name: str) -> Floats:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise StepconfError(f"{name} must be numbers: {error}.") from error
    if array.ndim != 1:
        raise StepconfError(f"{name} must be one row of numbers; its shape is {array.shape}.")
    if not array.size:
        raise StepconfError(f"{name} is empty: there is nothing to measure.", "Are all labels unknown?")
    return array


def _refuse(array: Floats, bad: Bools, demand: str, hint: str) -> None:
    if bad.any():
        seen = ", ".join(f"{value:g}" for value in array[bad][:_SHOWN])
        raise StepconfError(f"{demand}; saw {seen} ({int(bad.sum())} of {array.size} values).", hint)
