"""Plans against the figures they were derived from, the refusals word by word, and properties over everything that can be asked for."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runners import stages
from runners.artifacts.record import Phase
from runners.compression.head import _KEPT
from runners.fields import HeadSpec, SpeculationSpec
from runners.planning import costs, session, tables, training
from runners.planning.machines import H100, L4, MACHINES, T4, machine
from runners.planning.serving import ANSWERS, Answers, head_bytes, plan_serving, tokens_a_step_needed
from runners.planning.training import ASSUMED_CORPUS, CorpusSize
from runners.spec import MachineSpec, ServeSpec, Spec, TrainSpec
from runners.training.memory import flops_per_token
from runners.training.shape import QWEN2_14B, bytes_read_per_token, resident_bytes
from tests.planning.plans import PRICES, refused, serve_plan, train_plan

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
    (warning,) = [notice for notice in serve_plan(serve={"kv_cache_dtype": "fp8"}).warnings if "fp8" in notice.found]
    assert "answers change" in warning.found and "--fp8-cache" in warning.fix
    assert not [notice for notice in serve_plan().warnings if "fp8" in notice.found]
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
    for phase in train_plan(head=HeadSpec()).phases:
        assert 0 < phase.optimistic_s < phase.expected_s < phase.pessimistic_s, phase
        assert re.search("measured|assumed|published", phase.source), phase


@pytest.mark.parametrize(
    ("stage", "file"),
    [("train", "training/train.py"), ("merge", "compression/merge.py"), ("head", "compression/head.py"), ("quantize", "compression/quantize.py")],
)
def test_every_phase_that_a_stage_times_is_planned_under_its_name(stage: str, file: str) -> None:
    """Otherwise a record could not be held against its plan."""
    text = (Path(stages.__file__).parent / file).read_text().replace("{settings.backend}", "autoawq")
    timed = re.findall(r'watch\.phase\(f?"([^"]+)"\)', text)
    planned = {phase.name for phase in train_plan(head=HeadSpec()).phases}
    assert timed
    assert {f"{stage}: {name}" for name in timed} <= planned


def test_the_second_image_is_waited_for_only_by_a_session_that_is_quicker_than_its_pull() -> None:
    """It is pulled beside the work with the first, and a start has both or, of a server, none."""
    tiny = replace(QWEN2_14B, layers=2, vocabulary=1000)
    for shape, waits in ((QWEN2_14B, False), (tiny, True)):
        planned = {phase.name: phase for phase in train_plan(shape=shape, corpus=CorpusSize(10, 400, "a test")).phases}
        assert ("second container image" in planned) is waits
        if second := planned.get("second container image"):
            names = list(planned)
            at = names.index("second container image")
            assert names[at + 1] == "quantize: program"
            beside = sum(planned[name].expected_s for name in names[names.index("train: program") : at])
            assert second.expected_s == pytest.approx(planned["first container image"].expected_s - beside)
    assert not any("image" in phase.name for phase in train_plan(image_is_baked=True).phases[1:])


@pytest.mark.parametrize("host", [{}, {"image_is_baked": True}, {"provisioning_model": "RUN", "machine_type": "run-rtx6000-20"}], ids=["stock", "baked", "run"])
def test_gates_take_at_most_15_percent_of_the_session(host: dict[str, Any]) -> None:
    planned = train_plan(**host).phases
    gates = [phase for phase in planned if phase.name in ("merge: compare with the adapter", "quantize: measure")]
    assert len(gates) == 2
    for seconds in ("optimistic_s", "expected_s", "pessimistic_s"):
        share = sum(getattr(phase, seconds) for phase in gates) / sum(getattr(phase, seconds) for phase in planned)
        assert 0.03 < share <= 0.15, f"{share:.1%} of {seconds}"


def test_an_adapter_goes_up_in_4_bytes_a_parameter_and_the_held_out_share_is_read() -> None:
    seconds = {phase.name: phase.expected_s for phase in train_plan().phases}
    # 552.7 M parameters in fp32 by 45 % of 25 Gbit/s.
    assert seconds["train: publish"] == pytest.approx(552.7e6 * 4 * 8 / 25e9 / 0.45, rel=0.01)
    # 8 % of the pairs, 122 of 1,521, in a forward alone: half the time that training takes.
    a_pair = 200 / training.tokens_per_s(QWEN2_14B, TrainSpec(), H100_1, checkpointing=False)
    assert seconds["train: first evaluation"] == pytest.approx(122 * a_pair / 2, rel=0.02)


def test_checkpoints_are_in_the_session_as_the_copy_that_training_waits_for() -> None:
    """Once an epoch by default: weights and two moments of each parameter of the adapter, fp32, at 1.07 GB/s. Writing goes on behind the training."""
    one, two = ({phase.name: phase.expected_s for phase in train_plan(train=train).phases} for train in ({}, {"checkpoints_per_epoch": 2}))
    copies, held_out = 5 * 552.7e6 * 3 * 4 / 1.07e9, 5 * one["train: first evaluation"]
    assert copies / 5 == pytest.approx(6.2, abs=0.05)  # measured on an H100: tests/gpu/README.md
    assert two["train: train"] - one["train: train"] == pytest.approx(copies + held_out, rel=0.01)
    steps = 1399 * 200 * 5 / training.tokens_per_s(QWEN2_14B, TrainSpec(), H100_1, checkpointing=False)
    assert one["train: train"] == pytest.approx(steps + copies + held_out, rel=0.005)
    assert one.keys() == two.keys() and {name for name in one if "checkpoint" in name or "write" in name} == {"train: write adapter"}


def test_a_card_of_80_gb_is_planned_with_what_torch_sees_of_it() -> None:
    """79.2 GiB of 80, and a tenth of them left: the micro-batch and its memory are those of the page, and of what was measured."""
    plan = train_plan()
    assert plan.memory and plan.memory_limit_gb == pytest.approx(76.54, abs=0.01)
    assert (plan.memory.micro_batch_tokens, plan.memory.checkpointing) == (2944, False) and plan.memory.total_gb == pytest.approx(75.1, abs=0.05)
    named = {size: [one.name for one in MACHINES.values() if one.accelerator.memory_gib >= size] for size in (79.1, 80)}
    assert "a3-highgpu-1g" in named[79.1] and "a2-ultragpu-1g" in named[79.1]
    assert {MACHINES[name].accelerator.name for name in named[80]} == {"RTX PRO 6000 96 GB"}
    whole = replace(H100_1, accelerator=replace(H100, memory_gib=80.0))
    assert training.chosen(QWEN2_14B, TrainSpec(), whole).micro_batch_tokens > 2944, "80 GiB would be planned otherwise"


def test_a_record_says_phase_by_phase_where_the_plan_was_wrong() -> None:
    spec = session.with_plan(Spec(machine=MachineSpec(machine_type="a3-highgpu-1g")), QWEN2_14B, ASSUMED_CORPUS)
    assert spec.machine
    planned = spec.machine.planned["merge: merge"]
    took = [Phase(name="merge", started_at="", seconds=planned.expected_s * 1.5), Phase(name="compare with the adapter", started_at="", seconds=1e4)]
    rows = stages.against_plan(spec, "merge", [*took, Phase(name="something new", started_at="", seconds=1)])
    assert [(row["phase"], row["within"]) for row in rows] == [("merge", True), ("compare with the adapter", False)]
    assert rows[0]["off"] == pytest.approx(0.5, abs=0.01)
    assert stages.against_plan(Spec(), "merge", took) == []


def test_the_page_says_by_the_plans_figures_why_a_session_takes_more_than_ten_minutes() -> None:
    """The phases that wait for each other are more than ten minutes, whatever the others are overlapped with."""
    page = (Path(__file__).parents[1] / "benchmarks" / "TRAINING.md").read_text().split("### Why a session is planned at")[1].split("\n## ")[0]
    stock, plan = train_plan(), train_plan(image_is_baked=True)
    seconds = {phase.name: phase.expected_s for phase in plan.phases}
    lines = {
        "boot": ["boot (baked image)"],
        "the training's program; download; data; model onto the card": [f"train: {name}" for name in ("program", "download", "read data", "load model")],
        "first evaluation, training, adapter written": ["train: first evaluation", "train: train", "train: write adapter"],
        "merge": ["merge: merge"],
        "AWQ": ["quantize: quantize with autoawq"],
        "AWQ's gate": ["quantize: measure"],
        "the other two programs": ["merge: program", "quantize: program"],
        "merge's gate": ["merge: compare with the adapter"],
        "adapter and quantized model published": ["train: publish", "quantize: publish"],
    }
    assert sorted(name for names in lines.values() for name in names) == sorted(seconds)
    for line, names in lines.items():
        assert f"| {line} | {sum(seconds[name] for name in names):.0f} |" in page
    chain = sum(seconds[name] for names in list(lines.values())[:6] for name in names)
    assert chain > 600 and f"**{chain:.0f}**" in page and f"the chain alone is {chain / 60:.1f} minutes" in page
    assert f"in expected seconds of {plan.expected_s:.0f} in all" in page and page.startswith(f" {plan.expected_s / 60:.1f} minutes and not at 10")
    # Steps alone get faster with the card's share: not the copies of checkpoints, nor what stands still.
    steps = 5 * ASSUMED_CORPUS.tokens / training.tokens_per_s(QWEN2_14B, TrainSpec(), H100_1, checkpointing=False)
    all_overlapped, none = (f"{100 * training.UTILISATION * steps / (steps - over):.0f} %" for over in (chain - 600, plan.expected_s - 600))
    assert f"with everything overlapped {all_overlapped} of the card's FLOP/s instead of 27.7 %, with nothing overlapped {none}." in page
    assert f"the plan says {plan.optimistic_s / 60:.1f} minutes" in page
    assert f"{stock.expected_s - plan.expected_s:.0f} s of installing and pulling the first image come on top: {stock.expected_s / 60:.1f} minutes" in page


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
    assert re.search(rf"a3-highgpu-{cards}g takes \d+ minutes and \$\d+\.\d+, a3-highgpu-1g takes 18 minutes and \$1\.\d+", text)
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


# --- the target that cannot be met --------------------------------------------------------------------------------------------------------


def test_2000_ms_on_one_l4_is_said_loudly_with_what_would_meet_it() -> None:
    (warning,) = [notice for notice in serve_plan().warnings if "mean latency" in notice.found]
    assert "2,000 ms cannot be reached" in warning.found
    assert "a floor of 3.93 s" in warning.found
    assert "answers of about 55 tokens instead of 140" in warning.fix
    assert "3.2 tokens a step, or 2.8 and an int4 output layer" in warning.fix
    assert "A100 40 GB: about 1.5 s" in warning.fix


def test_a_target_that_is_met_is_not_warned_of() -> None:
    assert not [notice for notice in serve_plan(answers=Answers(150, 50)).warnings if "mean latency" in notice.found]


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
    assert assumed.tokens_a_step and assumed.tokens_a_step.mean == 1.5


def test_a_head_costs_the_session_minutes_and_dollars_and_its_weights_slow_each_step() -> None:
    plain, plan = train_plan(), train_plan(head=HeadSpec())
    more_s = plan.expected_s - plain.expected_s
    assert 300 < more_s < 900 and not plan.refusals
    (row,) = [row for row in tables.money_rows(plan) if "EAGLE-3" in row[0]]
    assert row == ("of it the EAGLE-3 head, about 9 min (5 min at best, 21 min at worst)", f"{plan.money.usd_expected - plain.money.usd_expected:.2f}")
    assert not [row for row in tables.money_rows(plain) if "EAGLE-3" in row[0]]
    made = {
        count: plan_serving(QWEN2_14B, "awq", machine("g2-standard-8"), ServeSpec(speculation=SpeculationSpec(method="eagle3", draft_tokens=count)), ANSWERS)
        for count in (2, 4)
    }
    # 434 M parameters in 4 bits are 0.29 GB, read once for each drafted token, beside 8.4 GB for the step.
    assert made[4].speculation_cost - made[2].speculation_cost == pytest.approx(2 * 0.288 / 8.42, rel=0.02)
    assert tokens_a_step_needed(2000, made[4], ANSWERS) == pytest.approx(3.12, abs=0.01)


def test_four_bits_of_a_head_are_worth_it_down_to_four_fifths_of_the_tokens() -> None:
    sizes = {bits: head_bytes(QWEN2_14B, HeadSpec(bits=bits)) for bits in (4, 16)}
    assert [round(sizes[bits] / 1e9, 2) for bits in (4, 16)] == [0.29, 0.87]
    four, whole = (
        plan_serving(
            QWEN2_14B,
            "awq",
            machine("g2-standard-8"),
            ServeSpec(speculation=SpeculationSpec(method="eagle3", model_bytes=int(sizes[bits]), accepted_tokens=tokens)),
            ANSWERS,
        )
        for bits, tokens in ((4, 2.0 * 0.82), (16, 2.0))
    )
    assert four.expected_ms == pytest.approx(whole.expected_ms, rel=0.01)
    assert whole.speculation_cost / four.speculation_cost == pytest.approx(1 / 0.82, rel=0.01)
    # The gate keeps 0.9 of the extra tokens: of any number of tokens a step, more than 0.82.
    assert all(1 + _KEPT * (tokens / 10 - 1) > 0.82 * tokens / 10 for tokens in range(10, 51))


def test_a_card_that_cannot_train_the_head_is_refused_before_money_is_spent() -> None:
    small = train_plan(machine_type="a2-highgpu-1g", head=HeadSpec())
    assert "training the EAGLE-3 head takes" in refused(small)


def test_several_servers_cost_from_the_least_to_the_most() -> None:
    one, plan = serve_plan(), serve_plan(serve={"replicas": {"min": 2, "max": 4}})
    assert one.money.usd_per_hour_grown is None
    assert plan.money.usd_per_hour == pytest.approx(2 * one.money.usd_per_hour + 0.05)
    assert plan.money.usd_per_hour_grown == pytest.approx(4 * one.money.usd_per_hour + 0.05)
    assert plan.money.usd_at_most == pytest.approx(4 * one.money.usd_at_most + 24 * 0.05)
    said = "\n".join(tables.brief(plan))
    assert f"${plan.money.usd_per_hour:.2f} an hour with 2 servers, ${plan.money.usd_per_hour_grown:.2f} with 4, at most" in said and "for 4 VMs" in said
    assert [row[0] for row in tables.money_rows(plan)][:2] == ["an hour with 2 servers and the load balancer", "an hour with 4 servers"]
    assert "at most for one VM, 24 h" in tables.money_rows(one)[2][0] and tables.money_rows(one)[0][0] == "an hour"
