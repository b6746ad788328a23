"""Which stack to take: for a stated use of a server, and for a training. Pure.

Requests arrive at random during some hours of a day. Cloud Run is started by a request and kept for a while after the last one. A VM is started by a
command once a day, and is up for all those hours and its idle minutes.

elson plan --requests-per-hour 4 --hours-per-day 2
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from runners.planning.cloud_run import TAIL_MINUTES
from runners.planning.parts import Plan

#: A VM has to save more than this share of Cloud Run's price to be worth the command that starts it every day.
WORTH_A_COMMAND = 0.10
_LEAST_REQUESTS_PER_HOUR, _MOST_REQUESTS_PER_HOUR, _STEP = 0.01, 1000.0, 1.3


@dataclass(frozen=True)
class Use:
    """How much a server is asked."""

    requests_per_hour: float = 4.0
    hours_per_day: float = 2.0
    days_per_month: float = 22.0


@dataclass(frozen=True)
class Option:
    """What a stack costs for a use. ``busiest`` is the requests an hour from which on Cloud Run costs more than this VM, where there is such a number."""

    stack: str
    on_run: bool
    usd_per_month: float
    billed_hours_per_day: float
    starts_per_day: float
    first_answer_s: float
    can_be_taken: bool
    dearer_from: float | None = None


def options(plans: Sequence[Plan], use: Use) -> list[Option]:
    """Every serving plan that can work, cheapest first."""
    run = next((plan for plan in plans if plan.machine.is_run), None)
    found = []
    for plan in plans:
        if plan.role != "serve" or plan.refusals:
            continue
        hours, starts = _billed(plan, use)
        least = None if run is None or run.refusals or plan is run else break_even(run, plan, use)
        spot = plan.wanted.provisioning_model == "SPOT"
        first = plan.expected_s + (plan.serving.expected_ms / 1000 if plan.serving else 0)
        found.append(Option(plan.stack, plan.machine.is_run, usd_per_month(plan, use), hours, starts, first, spot, least))
    return sorted(found, key=lambda option: option.usd_per_month)


def usd_per_month(plan: Plan, use: Use) -> float:
    """Dollars a month; the bucket is the same for all."""
    hours, starts = _billed(plan, use)
    return use.days_per_month * (hours * plan.money.usd_per_hour + starts * plan.start_usd)


def awake(requests_per_hour: float, hours: float, tail_minutes: float, start_s: float, answer_s: float) -> tuple[float, float]:
    """(billed hours, starts) of an instance that requests wake, for one day.

    Gaps between random requests are exponential: an instance is billed for the shorter of a gap and its tail, and is started again after a longer one.
    """
    requests, tail, once = requests_per_hour * hours, tail_minutes / 60, (start_s + answer_s) / 3600
    if requests <= 1:
        return requests * (tail + once), requests
    outlived = math.exp(-requests_per_hour * tail)
    starts = 1 + (requests - 1) * outlived
    between = (requests - 1) * (1 - outlived) / requests_per_hour
    return between + tail + answer_s / 3600 + starts * start_s / 3600, starts


def _billed(plan: Plan, use: Use) -> tuple[float, float]:
    if plan.machine.is_run and plan.wanted.min_instances:
        return 24.0 * plan.wanted.min_instances * 365 / 12 / use.days_per_month, 0.0  # kept, on the other days too
    if plan.machine.is_run:
        return awake(use.requests_per_hour, use.hours_per_day, TAIL_MINUTES, plan.expected_s, plan.serving.expected_ms / 1000 if plan.serving else 0.0)
    return use.hours_per_day + plan.spec.serve.idle_minutes / 60 + plan.expected_s / 3600, 1.0


def break_even(run: Plan, vm: Plan, use: Use) -> float | None:
    """Requests an hour from which on Cloud Run costs more than a VM, for the same hours a day; None when it never does."""
    there = usd_per_month(vm, use)

    def dearer(rate: float) -> bool:
        return usd_per_month(run, Use(rate, use.hours_per_day, use.days_per_month)) > there

    # Not monotone where each start costs something by itself: look for the first rate that is dearer, then between it and the one before.
    low, high = 0.0, _LEAST_REQUESTS_PER_HOUR
    while not dearer(high):
        low, high = high, high * _STEP
        if high > _MOST_REQUESTS_PER_HOUR:
            return None
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (low, middle) if dearer(middle) else (middle, high)
    return high


def recommend(found: Sequence[Option]) -> tuple[Option, str]:
    """One of the options, cheapest first, and why. Raises ValueError for an empty list."""
    if not found:
        raise ValueError("no option")
    best = found[0]
    run = next((option for option in found if option.on_run), None)
    if run is None:
        return best, "the cheapest; there is no Cloud Run stack that works"
    if best.on_run:
        return run, "the cheapest, and a request wakes it"
    saved = run.usd_per_month - best.usd_per_month
    if saved <= WORTH_A_COMMAND * run.usd_per_month:
        return run, f"${saved:.2f} a month more than {best.stack}, and nobody has to start it"
    taken = "; it may be taken, with two minutes' notice" if best.can_be_taken else ""
    return best, f"${saved:.2f} a month less than {run.stack}, for a command every day and a wait of {best.first_answer_s / 60:.0f} minutes{taken}"


def text(found: Sequence[Option], use: Use) -> list[str]:
    """Lines for a terminal."""
    lines = [f"Use: {use.requests_per_hour:g} requests an hour, {use.hours_per_day:g} hours a day, {use.days_per_month:g} days a month"]
    for option in found:
        how = f"woken by a request, {option.starts_per_day:.1f} times a day" if option.on_run else "started by a command, once a day"
        lines.append(
            f"  {option.stack:15} ${option.usd_per_month:8.2f} a month   {option.billed_hours_per_day:5.2f} h a day billed   {how};"
            f" the first answer after {option.first_answer_s:.0f} s"
        )
    for option in found:
        if option.dearer_from is not None:
            lines.append(f"  Cloud Run costs more than {option.stack} from {option.dearer_from:.1f} requests an hour on (for these hours a day)")
    if found:
        best, why = recommend(found)
        lines.append(f"  recommended: {best.stack} ({why})")
    return lines


def training_text(plans: Sequence[Plan]) -> list[str]:
    """The training stacks that can work beside each other, and the one to take; nothing when there is no choice."""
    able = sorted((plan for plan in plans if plan.role == "train" and not plan.refusals), key=lambda plan: plan.money.usd_expected)
    if len(able) < 2:
        return []
    lines = ["Training:"]
    for plan in able:
        needs = (
            "no quota of GPUs on VMs, and no VM that could be left running"
            if plan.machine.is_run
            else f"a quota of {plan.machine.accelerator.name}, and capacity"
        )
        lines.append(
            f"  {plan.stack:15} {plan.machine.accelerator.name}, about {plan.expected_s / 60:.0f} min, "
            f"${plan.money.usd_expected:.2f} to ${dearest_usd(plan):.2f}; needs {needs}"
        )
    best, why = recommend_training(able)
    return [*lines, f"  recommended: {best.stack} ({why})"]


def recommend_training(able: Sequence[Plan]) -> tuple[Plan, str]:
    """One of the plans, cheapest first, and why: Cloud Run wherever its dearest price is no more than the other's expected one."""
    best = able[0]
    run = next((plan for plan in able if plan.machine.is_run), None)
    if run is not None and (run is best or dearest_usd(run) <= best.money.usd_expected * (1 + WORTH_A_COMMAND)):
        return run, "no quota to wait for, no market of spot VMs, and it ends by itself"
    return best, f"${best.money.usd_expected:.2f} expected; without a quota for it, take {run.stack}" if run else "the cheapest"


def dearest_usd(plan: Plan) -> float:
    """A training's price at the dearest hour seen."""
    return plan.money.usd_at_most * 60 / plan.wanted.deadline_minutes * plan.expected_s / 3600
