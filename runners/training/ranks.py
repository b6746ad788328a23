"""One training in several processes, one a card: data parallel.

Each process takes its share of a step's micro-batches. Where the model fits a card, each holds it whole; the adapter's gradients are summed once a step, so
the weights stay equal without being sent. There is no wrapper around the model: the loop calls its parts directly, and a wrapper's hooks would never fire.
A model that does not fit is shared out too (``sharded.py``).
What decides (losses, "is a stop wanted?") is summed over all processes first: a process that decides alone leaves the others waiting for ever.

The number of processes is no part of what a checkpoint holds, so a training goes on with another number.

    python -m torch.distributed.run --standalone --nproc-per-node 2 -m runners.training.worker SPEC BASE DATASET WORK
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

Item = TypeVar("Item")
#: Gradients are summed in pieces of this size: one copy of the whole would be 2.2 GB of the card.
PIECE_BYTES = 256 << 20


@dataclass(frozen=True)
class Ranks:
    """This process among all of them."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def share(self, items: Sequence[Item], *, equally: bool = False) -> list[tuple[Item, float]]:
        """What this process does of a step, with weight 1. Some may get nothing, unless all must do equally many: then items of weight 0 fill up."""
        own = [(item, 1.0) for item in items[self.rank :: self.count]]
        lacking = -(-len(items) // self.count) - len(own) if equally else 0
        # The last is the smallest, or nearly.
        return own + [(items[-1], 0.0)] * lacking

    def total(self, value: float) -> float:
        """The sum over all processes."""
        if self.count == 1:
            return value
        import torch

        found = torch.tensor([value], dtype=torch.float64, device="cuda" if torch.cuda.is_available() else "cpu")
        torch.distributed.all_reduce(found)
        return float(found)

    def any(self, flag: bool) -> bool:
        """Whether it is true in any process: SIGTERM reaches one of them first."""
        return self.total(float(flag)) > 0

    def add_gradients(self, parameters: Sequence[Any]) -> None:
        """Sum the gradients of all processes into each. A process without a micro-batch in this step adds zeros."""
        if self.count == 1:
            return
        import torch

        for piece in _pieces(parameters):
            flat = torch.cat([torch.zeros_like(one).flatten() if one.grad is None else one.grad.flatten() for one in piece])
            torch.distributed.all_reduce(flat)
            for one, gradient in zip(piece, flat.split([one.numel() for one in piece]), strict=True):
                one.grad = gradient.view_as(one).clone() if one.grad is None else one.grad.copy_(gradient.view_as(one))

    def group(self) -> Any:
        """Connections of their own, for what goes on beside the training (checkpoints): two threads that share one would take each other's messages."""
        import torch

        return torch.distributed.new_group(backend="gloo")

    def wait(self) -> None:
        """Return when all processes are here."""
        self.total(0.0)


#: One process.
ALONE = Ranks()


def join() -> Ranks:
    """This process's place, as ``torch.distributed.run`` sets it; alone without it. Takes the card of its number."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return ALONE
    import torch

    on_card = torch.cuda.is_available()
    if on_card:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if on_card else "gloo")
    return Ranks(int(os.environ["RANK"]), count)


def leave() -> None:
    """Give the connections back at the end of the program."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _pieces(parameters: Sequence[Any]) -> list[list[Any]]:
    pieces: list[list[Any]] = []
    room = 0
    for one in parameters:
        size = one.numel() * one.element_size()
        if not pieces or size > room:
            pieces.append([])
            room = PIECE_BYTES
        pieces[-1].append(one)
        room -= size
    return pieces
