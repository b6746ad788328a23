"""The places of ``machine.places`` with their dollars: which of them may be used, and why one may not. Pure, but for the price table.

A place is left out when the plan does not fit there, no price of it is known, or its price is above what the user allows. The machine itself is the
first place. Which place a job is asked for next is decided while it waits, by ``infra/functions/watchdog/places.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from runners.errors import UserError
from runners.planning import costs, session
from runners.planning.machines import Prices, load_prices
from runners.planning.parts import Plan, PlannedPlace, machine_of
from runners.planning.training import CorpusSize
from runners.spec import MachineSpec, PlaceSpec, Spec
from runners.training.shape import Shape

Make = Callable[[Spec, Prices], Plan]


def with_places(plan: Plan, spec: Spec, make: Make, shape: Shape, corpus: CorpusSize) -> Plan:
    """The plan with every place of its spec, ranked; the same plan where there are no others.

    Args:
        plan: the plan of the machine itself.
        spec: the spec, with its places.
        make: plans a spec by a price table.
        shape: the base model's.
        corpus: what is trained on.
    """
    if spec.machine is None or not spec.machine.places:
        return plan
    first = _planned(1, plan, spec)
    others = [_place(rank, one, make, shape, corpus) for rank, one in enumerate(every(spec)[1:], 2)]
    return replace(plan, places=_without_doubles((first, *others)))


def at(spec: Spec, machine: MachineSpec, place: PlaceSpec) -> Spec:
    """The spec with the machine of a place. Another region or machine type has zones of its own; boot images are global."""
    changes = {key: value for key, value in place.model_dump().items() if value not in (None, ())}
    if {"region", "machine_type"} & changes.keys():
        changes.setdefault("zones", ())
    return spec.model_copy(update={"machine": machine.model_copy(update={**changes, "places": (), "price": None, "planned": {}})})


def every(spec: Spec) -> list[Spec]:
    """The spec of the machine itself, then that of each other place."""
    return [spec, *(at(spec, spec.machine, place) for place in spec.machine.places)] if spec.machine else [spec]


def usd_at_most(plan: Plan) -> float:
    """The dearest place that may be used: the deadline counts the minutes of all VMs of a job, wherever they are."""
    return max((place.usd_at_most for place in plan.places if not place.left_out), default=plan.money.usd_at_most)


def _place(rank: int, spec: Spec, make: Make, shape: Shape, corpus: CorpusSize) -> PlannedPlace:
    try:
        plan = make(spec, load_prices(machine_of("a place", spec).region))
        priced = costs.with_price(spec)
    except UserError as error:
        return PlannedPlace(rank, spec, left_out=f"{error.found} ({error.fix})")
    found = _planned(rank, plan, session.with_plan(priced, shape, corpus))
    return replace(found, left_out=f"{plan.refusals[0].found} ({plan.refusals[0].fix})") if plan.refusals else found


def _planned(rank: int, plan: Plan, spec: Spec) -> PlannedPlace:
    return PlannedPlace(rank, spec, plan.money.usd_per_hour, plan.money.usd_expected, plan.money.usd_at_most, plan.expected_s)


def _without_doubles(places: tuple[PlannedPlace, ...]) -> tuple[PlannedPlace, ...]:
    """A place that is there already is left out; one that was left out may be said again, with another ceiling or another disk."""
    seen: dict[tuple[str, str, str, tuple[str, ...]], int] = {}
    kept = []
    for place in places:
        machine = place.machine
        key = (machine.machine_type, machine.provisioning_model, machine.region, machine.zones)
        first = place.rank if place.left_out else seen.setdefault(key, place.rank)
        kept.append(place if first == place.rank else replace(place, left_out=f"it is place {first} again (remove it)"))
    return tuple(kept)
