"""What a use costs on Cloud Run and on VMs: figures computed by hand, the formula against simulated days, and the stack that is recommended."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.errors import UserError
from runners.planning import choices, cloud_run
from runners.planning.choices import Use, awake, break_even, options, recommend, usd_per_month
from runners.planning.machines import MACHINES, load_prices, machine
from runners.planning.parts import Plan
from runners.planning.plan import make_plan
from runners.planning.stacks import load
from runners.spec import MachineSpec, Spec, parse


def planned(stack: str, bucket_region: str = "us-central1", **changes: Any) -> Plan:
    values = load(stack).spec.model_dump(mode="json")
    for section, change in changes.items():
        values[section] = {**values[section], **change}
    spec = parse(values)
    assert spec.machine is not None
    return make_plan(stack, spec, load_prices(spec.machine.region), bucket_region=bucket_region)


SERVERS = ("serve-l4", "serve-l4-run", "serve-l4-spot")


def test_an_hour_of_cloud_run_is_its_parts() -> None:
    """4 cores and 16 GiB beside an L4 are $1.05, 8 and 32 are $1.42, as Google's price list of August 2026 has it; the gateway has a core of its own."""
    prices = load_prices("us-east4")
    assert prices.of(machine("run-l4-4"), "RUN").usd_per_hour == pytest.approx(1.05, abs=0.005)
    assert prices.of(machine("run-l4-8"), "RUN").usd_per_hour == pytest.approx(1.42, abs=0.005)
    assert planned("serve-l4-run").money.usd_per_hour == pytest.approx(1.4208 + 0.0648 + 0.0036, abs=0.001)
    low, high = (value for value in prices.of(machine("run-rtx6000-20"), "RUN").__dict__.values())
    assert 2.9 < low < high < 4.5, "a range: no price of this card on Cloud Run was found"


def test_thirty_uses_of_five_minutes_and_22_days_of_eight_hours() -> None:
    """By hand: (5 + 12 + 1.5) min x 30 x $1.05 = $9.71; (8 h + 12 min + 1.5 min) x 22 x $1.05 = $190."""
    one, _ = awake(1000, 5 / 60, 12, 90, 0)
    assert 30 * one * 1.05 == pytest.approx(9.71, abs=0.05)
    eight, starts = awake(1000, 8, 12, 90, 0)
    assert 22 * eight * 1.05 == pytest.approx(190, abs=0.5)
    assert starts == pytest.approx(1, abs=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.floats(0.5, 60), st.floats(0.5, 16), st.floats(5, 30), st.integers(0, 2**32))
def test_the_formula_is_what_random_requests_cost(rate: float, hours: float, tail: float, seed: int) -> None:
    """Days of exponential gaps, each billed for its shorter part; the mean of many is the formula."""
    source, requests = random.Random(seed), max(2, round(rate * hours))
    rate = requests / hours
    billed = starts = 0.0
    for _ in range(3000):
        gaps = [source.expovariate(rate) * 60 for _ in range(requests - 1)]
        billed += sum(min(gap, tail) for gap in gaps) + tail
        starts += 1 + sum(gap > tail for gap in gaps)
    hours_per_day, starts_per_day = awake(rate, hours, tail, 0, 0)
    assert billed / 3000 / 60 == pytest.approx(hours_per_day, rel=0.05)
    assert starts / 3000 == pytest.approx(starts_per_day, rel=0.05)


def test_break_even_is_where_both_cost_the_same() -> None:
    run, vm = planned("serve-l4-run"), planned("serve-l4")
    for use in (Use(1, 2), Use(1, 8), Use(1, 8, 30)):
        rate = break_even(run, vm, use)
        assert rate is not None
        there = replace(use, requests_per_hour=rate)
        assert usd_per_month(run, there) == pytest.approx(usd_per_month(vm, there), rel=0.02)
        assert usd_per_month(run, replace(use, requests_per_hour=rate / 2)) < usd_per_month(vm, use)


def test_the_recommendation_follows_the_use() -> None:
    plans = [planned(stack) for stack in SERVERS]
    rare, busy = Use(0.2, 2), Use(60, 8)
    best, why = recommend(options(plans, rare))
    assert best.on_run and "wakes it" in why
    best, why = recommend(options(plans, busy))
    assert best.stack == "serve-l4-spot" and "may be taken" in why and "command every day" in why
    steady = [option for option in options(plans, busy) if not option.can_be_taken]
    assert recommend(steady)[0].stack == "serve-l4"
    lines = "\n".join(choices.text(options(plans, busy), busy))
    assert "Cloud Run costs more than serve-l4 from" in lines and "recommended: serve-l4-spot" in lines


def test_a_little_more_is_not_worth_a_command_every_day() -> None:
    cheap, run = (
        replace(option, usd_per_month=usd) for option, usd in zip(options([planned("serve-l4"), planned("serve-l4-run")], Use()), (9.5, 10), strict=True)
    )
    by_name = sorted((replace(cheap, stack="serve-l4", on_run=False), replace(run, stack="serve-l4-run", on_run=True)), key=lambda option: option.usd_per_month)
    assert recommend(by_name)[0].on_run


def test_refused_plans_are_no_option_and_kept_instances_are_billed_all_day() -> None:
    small = planned("serve-l4-run", machine={"machine_type": "run-l4-4", "min_instances": 1})
    kept = planned("serve-l4-run", machine={"min_instances": 1})
    assert small.refusals and not options([small], Use())
    (option,) = options([kept], Use(1, 1, 20))
    assert option.billed_hours_per_day * 20 == pytest.approx(730, abs=1)


def test_a_start_pays_for_bytes_from_another_region() -> None:
    assert planned("serve-l4-run").start_usd == pytest.approx(9.98 * 0.02, abs=0.001)
    assert planned("serve-l4-run", bucket_region="us-east4").start_usd == 0


def test_memory_is_the_disk_of_an_instance() -> None:
    small = planned("serve-l4-run", machine={"machine_type": "run-l4-4"})
    (refusal,) = small.refusals
    assert refusal.found.startswith("run-l4-4 has 16 GiB of memory (17 GB), which is its disk too: model 10")
    assert refusal.fix == "machine.machine_type: run-l4-8"
    dora = make_plan("serve-l4-run", load("serve-l4-run").spec, load_prices("us-east4"), format="bf16", model_copies=2)
    assert any("which is its disk too" in notice.found for notice in dora.refusals)
    train = planned("train-run")
    assert not train.refusals and train.disk_needed_gb <= train.disk_given_gb
    assert train.memory and train.memory_limit_gb and train.memory.total_gb <= train.memory_limit_gb


@pytest.mark.parametrize(
    ("stack", "changes", "said"),
    [
        ("serve-l4-run", {"machine": {"region": "us-central1"}}, "Cloud Run has no L4 24 GB for everybody in us-central1"),
        ("serve-l4-run", {"serve": {"ready_timeout_s": 3600}}, "serve.ready_timeout_s is 3600"),
        ("train-run", {"machine": {"max_run_minutes": 120}}, "machine.max_run_minutes is 120"),
        ("train-run", {"merge": {"publish": False}}, "merge.publish is false"),
        ("train-run", {"machine": {"provisioning_model": "SPOT"}}, "run-rtx6000-20 is not sold as SPOT"),
        ("train-run", {"machine": {"deadline_minutes": 8}}, "the job takes about"),
    ],
)
def test_what_cloud_run_does_not_allow_is_refused_with_a_way_out(stack: str, changes: dict[str, Any], said: str) -> None:
    plan = planned(stack, **changes)
    assert [notice for notice in plan.refusals if notice.found.startswith(said)], plan.refusals
    assert all(notice.fix for notice in plan.refusals)


@pytest.mark.parametrize(
    "serve",
    [{"domain": "a.example.org", "open_to_the_internet": True}, {"allowed_cidrs": ["198.51.100.0/24"]}],
)
def test_cloud_run_has_no_firewall_and_its_own_certificate(serve: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="Cloud Run has its own certificate"):
        planned("serve-l4-run", serve=serve)
    assert planned("serve-l4-run", serve={"open_to_the_internet": True}).spec.serve.open_to_the_internet
    with pytest.raises(UserError, match="min_instances is larger"):
        planned("serve-l4-run", machine={"min_instances": 2})


def test_training_is_compared_and_one_is_recommended() -> None:
    run, vm = planned("train-run"), planned("train-h100")
    lines = "\n".join(choices.training_text([vm, run]))
    assert "RTX PRO 6000" in lines and "H100" in lines and "recommended: train-run" in lines
    assert run.money.usd_expected < vm.money.usd_expected < choices.dearest_usd(run)
    assert not choices.training_text([run]) and not choices.training_text([vm, planned("train-run", machine={"max_run_minutes": 90})])
    dear = replace(run, money=replace(run.money, usd_expected=2.0, usd_at_most=30))
    assert choices.recommend_training([vm, dear])[0] is vm


def test_the_cards_of_vms_and_of_cloud_run() -> None:
    prices = load_prices()
    for name in ("g4-standard-48", "a2-highgpu-1g", "run-rtx6000-20"):
        host = MACHINES[name]
        assert all(prices.of(host, model).usd_per_hour > 0 for model in host.provisioning)
    served = {
        name: make_plan("x", Spec(machine=MachineSpec(role="serve", machine_type=name, provisioning_model=model, max_run_minutes=1440)), prices)
        for name, model in (("g4-standard-48", "SPOT"), ("a2-highgpu-1g", "SPOT"))
    }
    assert all(not plan.refusals and plan.serving and plan.serving.expected_ms < 2000 for plan in served.values())
    assert cloud_run.DRIVERS["nvidia-rtx-pro-6000"] == "580"
