"""The plan of batches: every example once an epoch, 64 a step, no micro-batch over its budget, the same for the same seed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.spec import TrainSpec
from runners.training import batches
from runners.training.train import check_steps, evaluation_steps, learning_rate

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=150)


@given(LENGTHS, st.integers(1, 70), st.integers(1, 3), st.integers(0, 5), st.booleans())
def test_every_example_once_an_epoch_within_the_budget(lengths: list[int], batch: int, epochs: int, seed: int, packing: bool) -> None:
    budget = 300 + seed * 50
    steps = batches.plan(lengths, batch, epochs, budget, seed, packing=packing)
    assert len(steps) == batches.count_steps(len(lengths), batch, epochs)
    for epoch in range(epochs):
        seen = [index for step in steps if step.epoch == epoch for index in step.examples]
        assert sorted(seen) == list(range(len(lengths)))
    for step in steps:
        assert len(step.examples) <= batch
        for micro_batch in step.micro_batches:
            tokens = sum(lengths[index] for index in micro_batch) if packing else batches.padded_tokens(micro_batch, lengths)
            assert tokens <= budget
    assert steps == batches.plan(lengths, batch, epochs, budget, seed, packing=packing)


@given(LENGTHS, st.integers(300, 2000))
def test_packing_wastes_little(lengths: list[int], budget: int) -> None:
    """First fit decreasing: at most 11/9 of the least number of micro-batches there can be, plus one."""
    least = -(-sum(lengths) // budget)
    # The bound is against the best packing, which is at least `least`; two half-empty ones cannot both exist.
    made = batches.pack(range(len(lengths)), lengths, budget)
    assert len(made) <= 2 * least + 1
    assert sum(1 for one in made if 2 * sum(lengths[i] for i in one) <= budget) <= 1


def test_the_budget_does_not_move_examples_between_steps() -> None:
    lengths = [10 + 7 * index % 90 for index in range(200)]
    few, many = (batches.plan(lengths, 64, 2, budget, seed=3) for budget in (128, 4096))
    assert [sorted(step.examples) for step in few] == [sorted(step.examples) for step in many]


def test_epochs_and_seeds_differ() -> None:
    orders = [tuple(step.examples for step in batches.plan([5] * 50, 8, 2, 64, seed)) for seed in (0, 1)]
    assert orders[0] != orders[1] and orders[0][:7] != orders[0][7:]


def test_an_example_over_the_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="401 tokens does not fit micro-batches of 400"):
        batches.plan([3, 401], 2, 1, 400, 0)


def test_the_plans_own_numbers() -> None:
    assert batches.count_steps(950, 64, 5) == 75
    assert batches.count_steps(950, 64, 1) == 15
    check_steps(TrainSpec(), 950)


def test_evaluations_and_checkpoints_fall_within_each_epoch() -> None:
    assert evaluation_steps(TrainSpec(), 950) == {15, 30, 45, 60, 75}
    assert evaluation_steps(TrainSpec(checkpoints_per_epoch=2), 950) == {8, 15, 23, 30, 38, 45, 53, 60, 68, 75}
    assert evaluation_steps(TrainSpec(checkpoints_per_epoch=99, epochs=1), 100) == {1, 2}


@given(st.integers(1, 400), st.floats(0, 1))
def test_the_rate_rises_to_its_peak_and_falls(steps: int, warmup: float) -> None:
    settings = TrainSpec(warmup_fraction=warmup)
    rates = [learning_rate(step, steps, settings) for step in range(steps)]
    top = rates.index(max(rates))
    assert all(0 < rate <= settings.learning_rate * (1 + 1e-12) for rate in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)
