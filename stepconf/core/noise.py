"""Labels with errors at a known rate, so that what errors of a verifier do to pairs and training can be measured."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from stepconf.core.records import Label
from stepconf.errors import StepconfError

SOURCE = "noise"  # joins the verifiers in `label_source`
_OTHER: dict[Label, Label] = {"correct": "incorrect", "incorrect": "correct"}
_RANGE = 1 << 64


class Noise(NamedTuple):
    """Which labels are flipped: each with probability `rate` in [0, 1], by a hash of its step's id and `seed`."""

    rate: float = 0.0
    seed: int = 0

    @property
    def said(self) -> str:
        """What a reader of the labels must know; empty without noise."""
        return f"flipped at rate {self.rate}, seed {self.seed} (relabel --noise)" if self.rate else ""


def noise_of(recipe: Mapping[str, Any]) -> Noise:
    """The noise in the labels of a run, by its recipe."""
    verify = recipe.get("verify") or {}
    return Noise(verify.get("noise") or 0.0, verify.get("noise_seed") or 0)


def check_noise(noise: Noise) -> None:
    """Raise StepconfError where the rate is none."""
    if not 0 <= noise.rate <= 1:
        raise StepconfError(f"a share of labels is not {noise.rate}.", "Give one from 0 to 1: --noise 0.2")


def noised(label: Label, source: str, step_id: str, noise: Noise) -> tuple[Label, str]:
    """The label and source of a step after noise. An unknown label stays.

    The draws of different rates are nested: what is flipped at 0.1 is flipped at 0.2 too.
    """
    if label not in _OTHER or not is_turned(step_id, noise):
        return label, source
    return _OTHER[label], f"{source}+{SOURCE}" if source else SOURCE


def is_turned(step_id: str, noise: Noise) -> bool:
    """Whether the step's label, if it has one, is flipped."""
    digest = blake2b(f"{noise.seed}/{step_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < noise.rate * _RANGE
