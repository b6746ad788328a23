"""Plans against the figures they were derived from, the refusals word by word, and properties over everything that can be asked for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners import stages
from runners.artifacts.record import Phase
from runners.errors import UserError
from runners.planning import costs, session, tables, training
from runners.planning.machines import H100, L4, MACHINES, T4, load_prices, machine
from runners.planning.parts import Plan
from runners.planning.plan import make_plan
from runners.planning.serving import ANSWERS, Answers, plan_serving
from runners.planning.training import ASSUMED_CORPUS, CorpusSize
from runners.spec import MachineSpec, ServeSpec, Spec, SpeculationSpec, TrainSpec
from runners.training import memory
from runners.training.memory import flops_per_token
from runners.training.shape import QWEN2_14B, Shape, bytes_read_per_token, resident_bytes

PRICES = load_prices()
DEFAULTS: dict[str, Any] = {"provisioning_model": "STANDARD", "disk_gb": 100, "max_run_minutes": 1440}


def train_plan(*, corpus: CorpusSize = ASSUMED_CORPUS, whole_logits: bool = False, train: dict[str, Any] | None = None, **host: Any) -> Plan:
    spec = Spec(train=TrainSpec(**(train or {})), machine=MachineSpec(**{"machine_type": "a3-highgpu-1g", **host}))
    return make_plan("train-h100", spec, PRICES, corpus=corpus, whole_logits=whole_logits)


def serve_plan(machine_type: str = "g2-standard-8", format: Any = "awq", serve: dict[str, Any] | None = None, answers: Answers = ANSWERS) -> Plan:
    host = MachineSpec(role="serve", machine_type=machine_type, **DEFAULTS)
    return make_plan("serve-l4", Spec(serve=ServeSpec(**(serve or {})), machine=host), PRICES, format=format, answers=answers)


# --- the figures of the 14B model -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "value", "expected"),
    [
        ("parameters", QWEN2_14B.parameters, 14.77e9),
        ("linear parameters", QWEN2_14B.linear_parameters, 13.21e9),
        ("bytes in bf16", resident_bytes(QWEN2_14B, "bf16"), 29.54e9),
        ("bytes in AWQ", resident_bytes(QWEN2_14B, "awq"), 9.98e9),
        ("bytes read a token in AWQ", bytes_read_per_token(QWEN2_14B, "awq"), 8.42e9),
        ("cache bytes a token", QWEN2_14B.kv_bytes_per_token, 196_608),
        ("adapter with magnitudes", QWEN2_14B.adapter_parameters(128, TrainSpec().target_modules), 552.7e6),
        ("FLOP a token", flops_per_token(QWEN2_14B, TrainSpec(), checkpointing=False), 59.3e9),
        ("FLOP a token, checkpointed", flops_per_token(QWEN2_14B, TrainSpec(), checkpointing=True), 86.8e9),
    ],
)
def test_the_sizes_are_the_published_ones(what: str, value: float, expected: float) -> None:
    assert value == pytest.approx(expected, rel=0.01), what


def test_training_takes_what_was_computed_by_hand() -> None:
    """1.1 M tokens."""
    speeds = [training.tokens_per_s(QWEN2_14B, TrainSpec(), machine("a3-highgpu-1g"), checkpointing=False, utilisation=share) for share in (1.0, 0.4)]
    assert [round(1_100_000 / speed) for speed in speeds] == [66, 165]


H100_1 = machine("a3-highgpu-1g")


def test_static_memory_and_checkpoints() -> None:
    memory = training.memory(QWEN2_14B, TrainSpec(), 16 * 2048)
    assert memory.weights_gb + memory.adapter_gb == pytest.approx(38.4, abs=1.2)  # 16 B a trained parameter, and the adapter's bf16 copies
    assert 16 * 2048 * QWEN2_14B.layers * QWEN2_14B.hidden * 2 / 1e9 == pytest.approx(16.1, abs=0.1)
    assert 67 <= memory.total_gb <= 74  # chunked
    assert memory.total_gb <= training.card_gb(H100_1)
    assert training.memory(QWEN2_14B, TrainSpec(), 16 * 2048, whole_logits=True).logits_gb == pytest.approx(50, abs=0.5)


def test_one_l4() -> None:
    served = serve_plan().serving
    assert served is not None
    assert served.floor_step_ms == pytest.approx(28.07, abs=0.01)
    assert served.floor_tokens_per_s == pytest.approx(35.6, abs=0.05)
    assert served.expected_tokens_per_s == pytest.approx(29, abs=0.1)
    assert served.floor_ms == pytest.approx(3930, abs=1)
    assert served.expected_ms == pytest.approx(5000, abs=100)
    assert served.weights_gib == pytest.approx(9.29, abs=0.01)
    assert served.cache_tokens == pytest.approx(51_000, rel=0.01)
    fp8 = serve_plan(serve={"kv_cache_dtype": "fp8"}).serving
    assert fp8 is not None
    assert fp8.cache_tokens == pytest.approx(102_000, rel=0.01)


def test_fp8_and_other_cards() -> None:
    a100 = plan_serving(QWEN2_14B, "awq", machine("a2-highgpu-1g"), ServeSpec(), ANSWERS)
    assert a100.expected_ms == pytest.approx(1500, abs=50)


# --- steps ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("examples", "batch", "epochs", "steps"),
    [(950, 64, 5, 75), (950, 950, 5, 5), (950, 64, 1, 15), (64, 64, 1, 1), (65, 64, 1, 2), (1, 64, 3, 3), (40_993, 64, 5, 3205)],
)
def test_steps(examples: int, batch: int, epochs: int, steps: int) -> None:
    spec = TrainSpec(batch_examples=batch, epochs=epochs)
    assert training.optimizer_steps(CorpusSize(examples, 200, ""), spec) == steps


# --- the session, phase by phase -------------------------------------------------------------------------------------------------------


def test_every_phase_has_a_range_and_a_source() -> None:
    for phase in train_plan().phases:
        assert 0 < phase.optimistic_s < phase.expected_s < phase.pessimistic_s, phase
        assert re.search("measured|assumed|published", phase.source), phase


@pytest.mark.parametrize(("stage", "file"), [("train", "training/train.py"), ("merge", "compression/merge.py"), ("quantize", "compression/quantize.py")])
def test_every_phase_that_a_stage_times_is_planned_under_its_name(stage: str, file: str) -> None:
    """Otherwise a record could not be held against its plan."""
    text = (Path(stages.__file__).parent / file).read_text().replace("{settings.backend}", "autoawq")
    timed = re.findall(r'watch\.phase\(f?"([^"]+)"\)', text)
    planned = {phase.name for phase in train_plan().phases}
    assert timed
    assert {f"{stage}: {name}" for name in timed} <= planned


def test_a_record_says_phase_by_phase_where_the_plan_was_wrong() -> None:
    spec = session.with_plan(Spec(machine=MachineSpec(machine_type="a3-highgpu-1g")), QWEN2_14B, ASSUMED_CORPUS)
    assert spec.machine
    planned = spec.machine.planned["merge: merge"]
    took = [Phase(name="merge", started_at="", seconds=planned.expected_s * 1.5), Phase(name="compare with the adapter", started_at="", seconds=1e4)]
    rows = stages.against_plan(spec, "merge", [*took, Phase(name="something new", started_at="", seconds=1)])
    assert [(row["phase"], row["within"]) for row in rows] == [("merge", True), ("compare with the adapter", False)]
    assert rows[0]["off"] == pytest.approx(0.5, abs=0.01)
    assert stages.against_plan(Spec(), "merge", took) == []


def test_lora_is_faster_and_more_cards_of_another_kind_are_slower() -> None:
    seconds = {
        name: next(phase.expected_s for phase in train_plan(train=train, **host).phases if phase.name == "train: train")
        for name, train, host in (("dora", {}, {}), ("lora", {"adapter": "lora"}, {}), ("a100", {}, {"machine_type": "a2-ultragpu-1g"}))
    }
    assert seconds["lora"] < seconds["dora"] < seconds["a100"]


# --- more than one card ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cards", [2, 4, 8])
def test_cards_that_cost_more_and_save_little_are_refused_with_the_numbers(cards: int) -> None:
    text = refused(train_plan(machine_type=f"a3-highgpu-{cards}g"))
    assert "10 minutes saved" in text
    assert re.search(rf"a3-highgpu-{cards}g takes \d+ minutes and \$\d+\.\d+, a3-highgpu-1g takes 20 minutes and \$1\.\d+", text)
    assert "machine.machine_type: a3-highgpu-1g" in text


def test_cards_that_save_hours_are_planned() -> None:
    large = CorpusSize(40_993, 200, "another corpus")
    one, eight = (train_plan(corpus=large, machine_type=f"a3-highgpu-{cards}g", deadline_minutes=600, max_run_minutes=700) for cards in (1, 8))
    assert not eight.refusals
    assert eight.expected_s < one.expected_s / 2 and eight.money.usd_expected > one.money.usd_expected


def test_a_step_has_only_so_many_micro_batches_to_share_out() -> None:
    faster = [training.times_faster(QWEN2_14B, TrainSpec(), ASSUMED_CORPUS, machine(f"a3-highgpu-{cards}g")) for cards in (1, 2, 4, 8)]
    assert faster[0] == pytest.approx(1)
    assert faster == sorted(faster)
    assert all(one < cards + 1e-9 for one, cards in zip(faster, (1, 2, 4, 8), strict=True))


# --- refusals, with their numbers and ways out --------------------------------------------------------------------------------------------


def refused(plan: Plan) -> str:
    assert plan.refusals
    with pytest.raises(UserError) as error:
        plan.accept()
    for notice in plan.refusals:
        assert notice.found in str(error.value)
        assert notice.fix in str(error.value)
        assert any(character.isdigit() for character in str(notice)), "a refusal gives numbers"
    return "\n".join(map(str, plan.refusals))


def test_bf16_weights_on_one_l4() -> None:
    text = refused(serve_plan(format="bf16"))
    assert "27.5 GiB of bf16 weights" in text
    assert "8.8 GiB too few for the cache on 1 x L4 24 GB" in text
    assert "serve the 4-bit model (qdora)" in text
    assert "g2-standard-24 with serve.tensor_parallel: 2" in text


def test_bf16_weights_fit_two_l4() -> None:
    plan = serve_plan("g2-standard-24", "bf16", {"tensor_parallel": 2})
    assert not plan.refusals
    assert plan.serving is not None
    assert plan.serving.cache_tokens > 4096


def test_whole_logits_of_16_by_2048_on_80_gb() -> None:
    text = refused(train_plan(train={"micro_batch_tokens": 16 * 2048}, whole_logits=True))
    assert "32768 tokens a micro-batch take 121 GB" in text
    assert "whole logits 49.8" in text
    assert "at most 77 GB on one H100 80 GB" in text
    assert "train.micro_batch_tokens: 8192 or smaller, or the chunked loss" in text
    assert not train_plan(train={"micro_batch_tokens": 16 * 2048}).refusals


def test_six_optimizer_steps() -> None:
    text = refused(train_plan(corpus=CorpusSize(128, 2048, "950 pairs packed into 128 rows"), train={"epochs": 3}))
    assert "are 6 optimizer steps" in text
    assert "at least 20" in text
    assert "train.batch_examples: 19 or smaller" in text


def test_a_disk_of_100_gb() -> None:
    text = refused(train_plan(disk_gb=100))
    assert "a disk of 100 GB fills up" in text
    assert "base model 30" in text
    assert "merged model 30" in text
    assert "machine.disk_gb: 160" in text
    assert not train_plan(disk_gb=160).refusals


def test_an_h100_on_demand() -> None:
    assert "a3-highgpu-1g is not sold as STANDARD" in refused(train_plan(provisioning_model="STANDARD"))
    assert not train_plan(provisioning_model="FLEX_START").refusals


def test_a_deadline_before_the_end_and_a_platform_limit_before_the_deadline() -> None:
    assert "takes about 20 minutes" in refused(train_plan(deadline_minutes=10))
    assert "machine.max_run_minutes 60 is below deadline_minutes 120" in refused(train_plan(max_run_minutes=60))


def test_a_region_without_the_machine() -> None:
    assert "no zone of us-east1" in refused(make_plan("x", Spec(machine=MachineSpec(machine_type="a3-highgpu-1g", region="us-east1")), PRICES))
    assert "zone europe-west4-a is not in us-central1" in refused(train_plan(zones=("europe-west4-a",)))


def test_training_on_an_l4_and_on_a_t4() -> None:
    assert "a machine with a larger card (a2-ultragpu-1g, a3-highgpu-1g, g4-standard-48, run-rtx6000-20)" in refused(train_plan(machine_type="g2-standard-8"))
    assert "T4 16 GB has no bf16 (capability 7.5)" in refused(train_plan(machine_type="n1-standard-8-1xt4"))


@pytest.mark.parametrize("cards", [1, 2])
def test_the_t4_serves_awq_in_fp16_only(cards: int) -> None:
    name = f"n1-standard-8-{cards}xt4"
    plan = serve_plan(name, serve={"tensor_parallel": cards})
    assert not plan.refusals
    assert plan.serving is not None
    assert plan.serving.dtype == "float16"
    assert any("without Marlin" in notice.found for notice in plan.warnings)
    assert "has no bf16 (capability 7.5)" in refused(serve_plan(name, serve={"tensor_parallel": cards, "dtype": "bfloat16"}))
    assert "has no fp8 cache" in refused(serve_plan(name, serve={"tensor_parallel": cards, "kv_cache_dtype": "fp8"}))
    assert "of bf16 weights" in refused(serve_plan(name, "bf16", {"tensor_parallel": cards}))


def test_cards_that_would_idle() -> None:
    assert "has 2 x L4 24 GB" in refused(serve_plan("g2-standard-24"))


def test_a_certificate_needs_an_open_port() -> None:
    assert "port 443 is closed" in refused(serve_plan(serve={"domain": "api.example.org"}))
    assert not serve_plan(serve={"domain": "api.example.org", "open_to_the_internet": True}).refusals
    assert any("without TLS" in notice.found for notice in serve_plan(serve={"allowed_cidrs": ("198.51.100.0/24",)}).warnings)


def test_unknown_machine() -> None:
    with pytest.raises(UserError, match="g2-standard-8"):
        train_plan(machine_type="g2-standard-9")


# --- the target that cannot be met --------------------------------------------------------------------------------------------------------


def test_2000_ms_on_one_l4_is_said_loudly_with_what_would_meet_it() -> None:
    (warning,) = [notice for notice in serve_plan().warnings if "MEAN LATENCY" in notice.found]
    assert "2,000 MS IS NOT REACHABLE" in warning.found
    assert "a floor of 3.93 s" in warning.found
    assert "answers of about 55 tokens instead of 140" in warning.fix
    assert "2.8 accepted tokens a step and an int4 output layer" in warning.fix
    assert "A100 40 GB: about 1.5 s" in warning.fix


def test_a_target_that_is_met_is_not_warned_of() -> None:
    assert not [notice for notice in serve_plan(answers=Answers(150, 50)).warnings if "MEAN LATENCY" in notice.found]


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


@given(shapes, machines, st.booleans())
def test_the_largest_micro_batch_fits_and_twice_of_it_does_not(shape: Shape, name: str, whole: bool) -> None:
    host, spec = machine(name), TrainSpec()
    size = training.largest_micro_batch(shape, spec, host, whole_logits=whole)
    assert not size or training.memory(shape, spec, size, whole_logits=whole).total_gb <= training.card_gb(host)
    twice = 2 * size or 128
    assert size == 2**17 or training.memory(shape, spec, twice, whole_logits=whole).total_gb > training.card_gb(host)


@given(shapes, machines)
def test_the_plan_is_what_the_training_loop_chooses(shape: Shape, name: str) -> None:
    host, spec = machine(name), TrainSpec()
    planned = training.chosen(shape, spec, host)
    if planned is None:
        with pytest.raises(UserError):
            memory.choose(shape, spec, spec.max_tokens, int(host.accelerator.memory_gib * 2**30))
    else:
        assert training.memory(shape, spec, planned[0], checkpointing=planned[1]).total_gb <= training.card_gb(host)


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
    assert more.expected_s > one.expected_s
    assert more.money.usd_expected > one.money.usd_expected
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


# --- the catalogue ------------------------------------------------------------------------------------------------------------------------


def test_every_machine_that_is_sold_has_a_dated_price() -> None:
    for host in MACHINES.values():
        for model in host.provisioning:
            price = PRICES.of(host, model)
            assert 0 < price.usd_per_hour <= price.high_usd_per_hour
        assert host.is_run or host.disk_type in PRICES.disk_usd_per_gb_month
    assert PRICES.as_of.count("-") == 2


def test_spot_is_cheaper_and_more_cards_are_dearer() -> None:
    for host in MACHINES.values():
        if "STANDARD" in host.provisioning:
            assert PRICES.of(host, "SPOT").usd_per_hour < PRICES.of(host, "STANDARD").usd_per_hour
    ladder = [PRICES.of(machine(name), "STANDARD").usd_per_hour for name in ("g2-standard-4", "g2-standard-8", "g2-standard-12", "g2-standard-24")]
    assert ladder == sorted(ladder)


def test_capabilities() -> None:
    assert (T4.has_bf16, T4.has_marlin, T4.has_fp8_cache) == (False, False, False)
    assert (L4.has_bf16, L4.has_fp8_cache, H100.has_fp8_cache) == (True, True, True)
    assert machine("a3-highgpu-1g").quota("SPOT") == "PREEMPTIBLE_NVIDIA_H100_GPUS"
    assert machine("a3-highgpu-1g").quota("FLEX_START") == "PREEMPTIBLE_NVIDIA_H100_GPUS"
    assert machine("g2-standard-8").quota("STANDARD") == "NVIDIA_L4_GPUS"


def test_a_record_says_what_its_machine_cost() -> None:
    spec = costs.with_price(Spec(machine=MachineSpec(machine_type="a3-highgpu-1g")))
    cost = stages._cost(spec, 900)
    assert cost is not None
    assert cost.usd == pytest.approx(cost.usd_per_hour / 4, abs=1e-4)
    assert cost.priced_at == PRICES.as_of
    assert stages._cost(costs.with_price(Spec()), 900) is None


def test_speculation_divides_the_floor_and_costs_memory_and_a_little_of_each_step() -> None:
    plain = plan_serving(QWEN2_14B, "awq", machine("g2-standard-8"), ServeSpec(), ANSWERS)
    for method, model, accepted in (("ngram", None, 1.5), ("eagle3", "head", 2.7)):
        spec = ServeSpec(speculation=SpeculationSpec(method=method, model=model, accepted_tokens=accepted))
        made = plan_serving(QWEN2_14B, "awq", machine("g2-standard-8"), spec, ANSWERS)
        assert made.floor_ms == pytest.approx(plain.floor_ms / accepted)
        assert plain.expected_ms / accepted < made.expected_ms < plain.expected_ms
        assert (made.cache_tokens < plain.cache_tokens) == (model is not None)
    assumed = plan_serving(QWEN2_14B, "awq", machine("g2-standard-8"), ServeSpec(speculation=SpeculationSpec()), ANSWERS)
    assert assumed.accepted_tokens == 1.5
