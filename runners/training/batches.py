"""Which examples go through the model together: a pure plan, from lengths and a seed, without torch.

A batch is a number of *examples* an optimizer step sees (64 in the plan's own words; counting packed rows instead gave
6 to 10 steps in all). Inside a step the examples are packed into micro-batches that fit a token budget, one after the
other without padding. How they are packed cannot change the result: the loss is summed over the answer tokens of the
whole step and divided once.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

MicroBatch = tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """One optimizer step: micro-batches of example indexes."""

    epoch: int
    micro_batches: tuple[MicroBatch, ...]

    @property
    def examples(self) -> tuple[int, ...]:
        """All indexes of the step."""
        return tuple(index for micro_batch in self.micro_batches for index in micro_batch)


def count_steps(examples: int, batch_examples: int, epochs: int) -> int:
    """Optimizer steps of a run: 950 examples, 64 a step, 5 epochs are 75."""
    return math.ceil(examples / batch_examples) * epochs


def plan(lengths: Sequence[int], batch_examples: int, epochs: int, budget_tokens: int, seed: int, *, packing: bool = True) -> list[Step]:
    """Every step of a run, in order. The same arguments give the same plan, so a position in it is a step's number.

    Args:
        lengths: tokens of each example.
        batch_examples: examples of a step; the last step of an epoch has what is left.
        epochs: passes over the examples, each in its own order.
        budget_tokens: the most tokens a micro-batch may hold (with padding, if not packed).
        seed: what the orders depend on.
        packing: without it, a micro-batch is a padded rectangle of examples of like length.

    Raises:
        ValueError: an example does not fit the budget.
    """
    if lengths and max(lengths) > budget_tokens:
        raise ValueError(f"an example of {max(lengths)} tokens does not fit micro-batches of {budget_tokens}")
    arrange = pack if packing else group_by_length
    steps = []
    for epoch in range(epochs):
        order = list(range(len(lengths)))
        random.Random(f"epoch {seed} {epoch}").shuffle(order)
        chunks = [order[begin : begin + batch_examples] for begin in range(0, len(order), batch_examples)]
        steps += [Step(epoch, arrange(chunk, lengths, budget_tokens)) for chunk in chunks]
    return steps


def pack(indexes: Sequence[int], lengths: Sequence[int], budget_tokens: int) -> tuple[MicroBatch, ...]:
    """First fit decreasing: at most 11/9 of the best number of bins, plus one (Dósa 2007)."""
    bins: list[list[int]] = []
    room: list[int] = []
    for index in sorted(indexes, key=lambda index: (-lengths[index], index)):
        place = next((number for number, left in enumerate(room) if left >= lengths[index]), None)
        if place is None:
            bins.append([])
            room.append(budget_tokens)
            place = len(bins) - 1
        bins[place].append(index)
        room[place] -= lengths[index]
    return tuple(tuple(one) for one in bins)


def group_by_length(indexes: Sequence[int], lengths: Sequence[int], budget_tokens: int) -> tuple[MicroBatch, ...]:
    """Neighbours in length share a padded rectangle of at most ``budget_tokens``."""
    return _rectangles(sorted(indexes, key=lambda index: (-lengths[index], index)), lengths, budget_tokens)


def in_order(indexes: Sequence[int], lengths: Sequence[int], budget_tokens: int) -> tuple[MicroBatch, ...]:
    """Padded rectangles in the order of the shuffle: what a plain data loader does. Only measured against."""
    return _rectangles(indexes, lengths, budget_tokens)


def padded_tokens(micro_batch: Sequence[int], lengths: Sequence[int]) -> int:
    """Tokens the model sees when a micro-batch is a padded rectangle."""
    return len(micro_batch) * max(lengths[index] for index in micro_batch)


def _rectangles(ordered: Sequence[int], lengths: Sequence[int], budget_tokens: int) -> tuple[MicroBatch, ...]:
    batches: list[list[int]] = []
    for index in ordered:
        if batches and padded_tokens([*batches[-1], index], lengths) <= budget_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return tuple(tuple(one) for one in batches)
