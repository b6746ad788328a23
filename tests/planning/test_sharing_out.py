"""Base models that no card holds: planned on as few cards as can share them out, refused with the numbers where they cannot."""

from __future__ import annotations

import pytest

from runners.planning import tables
from runners.planning.training import CorpusSize
from runners.training.shape import Shape
from tests.planning.plans import refused, train_plan

#: The config.json of Qwen2.5-32B and of Llama-3.3-70B.
B32 = Shape(hidden=5120, layers=64, heads=40, kv_heads=8, head_size=128, intermediate=27648, vocabulary=152064)
B70 = Shape(hidden=8192, layers=80, heads=64, kv_heads=8, head_size=128, intermediate=28672, vocabulary=128256)
ROOM = {"disk_gb": 600, "deadline_minutes": 600, "max_run_minutes": 700}


def test_the_shapes_are_the_published_ones() -> None:
    assert B32.parameters / 1e9 == pytest.approx(32.76, abs=0.01)
    assert B70.parameters / 1e9 == pytest.approx(70.55, abs=0.01)


@pytest.mark.parametrize("cards", [1, 2, 4, 8])
def test_a_model_that_a_card_holds_is_never_shared_out(cards: int) -> None:
    memory = train_plan(machine_type=f"a3-highgpu-{cards}g", **ROOM).memory
    assert memory is not None and memory.parts == 1 and memory.gathered_gb == 0 and memory.weights_gb == pytest.approx(29.5, abs=0.1)


def test_a_32b_does_not_fit_one_h100_and_two_share_it_out() -> None:
    text = refused(train_plan(shape=B32, **ROOM))
    assert "2048 tokens a micro-batch take 88 GB (weights 65.5, adapter and Adam 19.4" in text and "at most 77 GB on one H100 80 GB" in text
    plan = train_plan(shape=B32, machine_type="a3-highgpu-2g", **ROOM)
    assert not plan.refusals and plan.memory is not None and plan.memory_limit_gb is not None
    # Half of 62.4 GB of layers, and embedding and output layer whole.
    assert plan.memory.weights_gb == pytest.approx(62.4 / 2 + 3.1, abs=0.1)
    assert plan.memory.parts == 2 and plan.memory.total_gb < plan.memory_limit_gb
    assert plan.optimistic_s < plan.expected_s < plan.pessimistic_s and plan.money.usd_expected < plan.money.usd_at_most
    title, _, rows = tables.sections(plan)[0]
    assert title.startswith("Memory") and ("gathered from the others (2 cards share the model)", f"{plan.memory.gathered_gb:.1f}") in rows


def test_more_cards_than_hold_it_must_save_time() -> None:
    text = refused(train_plan(shape=B32, machine_type="a3-highgpu-8g", **ROOM))
    assert "a3-highgpu-8g takes" in text and "a3-highgpu-2g takes" in text and "machine.machine_type: a3-highgpu-2g" in text
    large = CorpusSize(40_993, 200, "another corpus")
    two, eight = (train_plan(shape=B32, corpus=large, machine_type=f"a3-highgpu-{cards}g", **ROOM) for cards in (2, 8))
    assert not eight.refusals and eight.expected_s < two.expected_s / 2 and eight.money.usd_expected > two.money.usd_expected


def test_a_70b_is_planned_on_four_cards() -> None:
    one, two = (refused(train_plan(shape=B70, machine_type=f"a3-highgpu-{cards}g", **ROOM)) for cards in (1, 2))
    assert "take 176 GB" in one and "machine.machine_type: a3-highgpu-4g: 4 cards that share the model out" in one
    assert "take 100 GB" in two and "at most 77 GB on each of 2 H100 80 GB that share the model out" in two
    plan = train_plan(shape=B70, machine_type="a3-highgpu-4g", **ROOM)
    assert not plan.refusals and plan.memory is not None and plan.memory.parts == 4 and plan.memory.total_gb < 77
    assert plan.optimistic_s < plan.expected_s < plan.pessimistic_s and plan.money.usd_expected < plan.money.usd_at_most
    # Eight cards cost more and save no ten minutes.
    assert "machine.machine_type: a3-highgpu-4g" in refused(train_plan(shape=B70, machine_type="a3-highgpu-8g", **ROOM))


def test_what_no_machine_holds_is_refused_with_the_number_of_eight_cards() -> None:
    twice = Shape(hidden=16384, layers=126, heads=128, kv_heads=8, head_size=128, intermediate=53248, vocabulary=128256)
    assert "8 cards that share it out need" in refused(train_plan(shape=twice, machine_type="a3-highgpu-8g", **ROOM | {"disk_gb": 4000}))
