"""Properties of the plan over everything that can be asked for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.errors import UserError
from runners.planning import tables, training
from runners.planning.machines import MACHINES, machine
from runners.planning.plan import make_plan
from runners.planning.serving import Answers, plan_serving
from runners.planning.training import CorpusSize
from runners.spec import MachineSpec, ServeSpec, Spec, TrainSpec
from runners.training import memory
from runners.training.shape import Shape, bytes_read_per_token, resident_bytes
from tests.planning.plans import PRICES, train_plan

# --- everything that can be asked for -------------------------------------------------------------------------------------------------------

machines = st.sampled_from(sorted(MACHINES))
shapes = st.builds(
    Shape,
    hidden=st.sampled_from([2048, 3584, 5120, 8192]),
    layers=st.integers(8, 80),
    heads=st.just(32),
    kv_heads=st.sampled_from([4, 8, 32]),
    head_size=st.sampled_from([64, 128]),
    intermediate=st.integers(4096, 30_000),
    vocabulary=st.integers(32_000, 200_000),
    tied=st.booleans(),
)


@given(shapes, st.sampled_from([32, 64, 128]))
def test_four_bits_take_less_than_sixteen(shape: Shape, group: int) -> None:
    assert 0 < resident_bytes(shape, "awq", group) < resident_bytes(shape, "bf16")
    assert bytes_read_per_token(shape, "awq", group) <= resident_bytes(shape, "awq", group)


@given(shapes, st.integers(1, 256), st.integers(1, 60_000), st.booleans(), st.booleans())
def test_memory_grows_with_tokens_rank_and_whole_logits(shape: Shape, rank: int, tokens: int, checkpointing: bool, whole: bool) -> None:
    def total(rank: int, tokens: int, whole: bool) -> float:
        return training.memory(shape, TrainSpec(rank=rank), tokens, checkpointing=checkpointing, whole_logits=whole).total_gb

    assert total(rank, tokens, whole) < total(rank, tokens + 128, whole)
    assert total(rank, tokens, whole) < total(rank + 1, tokens, whole)
    if tokens > 4096:
        assert total(rank, tokens, False) < total(rank, tokens, True)


@given(shapes, machines, st.booleans(), st.sampled_from([None, True, False]))
def test_the_largest_micro_batch_fits_and_twice_of_it_does_not(shape: Shape, name: str, whole: bool, checkpointing: bool | None) -> None:
    host, spec = machine(name), TrainSpec(gradient_checkpointing=checkpointing)
    size = training.largest_micro_batch(shape, spec, host, whole_logits=whole)

    def needed_gb(tokens: int) -> float:
        parts = 1 if whole else host.count  # a trainer that keeps whole logits shares nothing out
        return training.memory(shape, spec, tokens, checkpointing=checkpointing is not False, whole_logits=whole, parts=parts).total_gb

    assert not size or needed_gb(size) <= training.card_gb(host)
    assert size == 2**17 or needed_gb(2 * size or 128) > training.card_gb(host)


@given(shapes, machines)
def test_the_plan_is_what_the_training_loop_chooses(shape: Shape, name: str) -> None:
    host, spec = machine(name), TrainSpec()
    planned = training.chosen(shape, spec, host)
    if training.fits(shape, spec, host):
        found = training.memory(shape, spec, planned.micro_batch_tokens, checkpointing=planned.checkpointing, parts=planned.parts)
        assert found.total_gb <= training.card_gb(host)
        # Shared out only where it must be: not even one example, checkpointed, fits the whole model.
        whole = training.memory(shape, spec, spec.max_tokens)
        assert planned.parts == 1 or (planned.parts == host.count and whole.total_gb > training.card_gb(host))
    else:
        with pytest.raises(UserError):
            memory.choose(shape, spec, spec.max_tokens, int(host.accelerator.memory_gib * 2**30), parts=(1, host.count))


@given(shapes, machines, st.sampled_from(["awq", "bf16"]), st.integers(1, 400), st.sampled_from([1, 2, 4]))
def test_serving_keeps_its_promises(shape: Shape, name: str, format: Any, tokens: int, cards: int) -> None:
    spec = ServeSpec(tensor_parallel=cards)
    served = plan_serving(shape, format, machine(name), spec, Answers(100, tokens))
    assert served.floor_ms < served.expected_ms
    assert served.weights_gib + served.overhead_gib + served.cache_gib <= served.usable_gib + 1e-6 or not served.fits
    longer = plan_serving(shape, format, machine(name), spec, Answers(100, tokens + 1))
    assert longer.expected_ms > served.expected_ms
    assert longer.cache_tokens == served.cache_tokens
    more = plan_serving(shape, format, machine(name), spec.model_copy(update={"gpu_memory_fraction": 0.95}), Answers(100, tokens))
    assert more.cache_tokens >= served.cache_tokens


@given(st.integers(1, 50_000), st.floats(20, 2000), st.integers(1, 512), st.integers(1, 10))
def test_more_of_the_corpus_takes_longer_and_costs_more(examples: int, tokens: float, batch: int, epochs: int) -> None:
    spec = {"batch_examples": batch, "epochs": epochs}
    one = train_plan(corpus=CorpusSize(examples, tokens, ""), train=spec)
    more = train_plan(corpus=CorpusSize(examples + 1, tokens, ""), train=spec)
    # The same for a corpus so small that the second image is waited for.
    assert more.expected_s > one.expected_s or any(phase.name == "second container image" and phase.expected_s for phase in one.phases)
    assert more.expected_s >= one.expected_s - 1e-6 and more.money.usd_expected >= one.money.usd_expected - 1e-9
    assert (more.steps or 0) >= (one.steps or 0)
    assert one.optimistic_s < one.expected_s < one.pessimistic_s
    assert one.money.usd_at_most >= one.money.usd_per_hour * 2 - 1e-6


@settings(max_examples=200)
@given(
    machines,
    st.sampled_from(["SPOT", "STANDARD", "FLEX_START", "RUN"]),
    st.sampled_from(["train", "serve"]),
    st.sampled_from(["awq", "bf16"]),
    st.integers(20, 2000),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from(["auto", "bfloat16", "float16"]),
)
def test_whatever_is_asked_for_is_planned_or_refused_with_a_way_out(
    name: str, provisioning: Any, role: Any, format: Any, disk: int, cards: int, dtype: Any
) -> None:
    host = MachineSpec(role=role, machine_type=name, provisioning_model=provisioning, disk_gb=disk, max_run_minutes=1440)
    plan = make_plan("a-stack", Spec(serve=ServeSpec(tensor_parallel=cards, dtype=dtype), machine=host), PRICES, format=format)
    for notice in (*plan.refusals, *plan.warnings):
        assert notice.found
        assert notice.expected
        assert notice.fix
    assert plan.money.usd_per_hour > 0
    assert all(len(row) == len(headers) for _, headers, rows in tables.sections(plan) for row in rows)
    assert tables.summary(plan)
    assert tables.as_json(plan)["stack"] == "a-stack"
    if not plan.refusals:
        assert plan.disk_needed_gb <= (plan.disk_given_gb if plan.machine.is_run else disk)
        assert provisioning in plan.machine.provisioning
        if plan.serving:
            assert plan.serving.cache_tokens >= 4096
        if plan.memory and plan.memory_limit_gb:
            assert plan.memory.total_gb <= plan.memory_limit_gb
