"""The processes that train together: one alone, or those that torchrun started, sharded by FSDP2."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from stepconf.core.trees import Tree


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among `size` processes; `device` is where its part of the model is."""

    rank: int
    size: int
    device: str

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, on every one of them."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def deal(self, batches: Sequence[list[Tree]]) -> list[list[Tree]]:
        """This process's share of the micro-batches, as many for each process (with FSDP they march in step).

        A process that has none left repeats one: the caller gives it weight 0 (`owns`).
        """
        rounds = -(-len(batches) // self.size)
        return [batches[min(r * self.size + self.rank, len(batches) - 1)] for r in range(rounds)]

    def owns(self, turn: int, n_batches: int) -> bool:
        """Whether micro-batch number `turn` of this process's share is its own."""
        return turn * self.size + self.rank < n_batches


def join() -> Ranks:
    """Join the processes that torchrun (or `accelerate launch`) started; alone where there are none."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    cuda = torch.cuda.is_available()
    if size == 1:
        return Ranks(0, 1, "cuda" if cuda else "cpu")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = f"cuda:{local}" if cuda else "cpu"
    if cuda:
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo")
    return Ranks(dist.get_rank(), size, device)


def shard(policy: Any, ranks: Ranks, compute: torch.dtype) -> None:
    """Shard the parameters over the processes (FSDP2): each decoder layer on its own, the rest with the root."""
    if ranks.size == 1:
        return
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    precision = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32)
    for layer in policy.layers:
        fully_shard(layer, mp_policy=precision)
    fully_shard(policy, mp_policy=precision)
