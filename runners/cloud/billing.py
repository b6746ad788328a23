"""Prices from Google's billing catalogue: https://cloud.google.com/billing/v1/how-tos/catalog-api.

A machine's price is the sum of its parts: cores, memory, cards. What a part is called there is matched by words, so each match must be unique
or the refresh stops and names the candidates: a wrong price is worse than an old one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from runners.errors import UserError
from runners.planning.machines import MACHINES, PRICES_FILE, Machine, Provisioning

#: Compute Engine in the catalogue.
SERVICE = "services/6F81-5844-456A"
#: provisioning model -> usage type of the catalogue, and the word its descriptions carry.
_USAGE: dict[Provisioning, tuple[str, ...]] = {"SPOT": ("Preemptible",), "STANDARD": ("OnDemand",), "FLEX_START": ("OnDemand", "Commit1Mo")}
_FAMILY = {"a3": "A3", "a2": "A2", "g2": "G2", "g4": "G4", "n1": "N1 Predefined"}
_CARDS = {
    "nvidia-h100-80gb": "H100 80GB",
    "nvidia-a100-80gb": "A100 80GB",
    "nvidia-tesla-a100": "A100",
    "nvidia-l4": "L4",
    "nvidia-tesla-t4": "T4",
    "nvidia-rtx-pro-6000": "RTX 6000 96GB",
}


def refresh(region: str, file: Path, skus: Iterable[dict[str, Any]] | None = None) -> list[str]:
    """Write the region's table again; returns a line for each price that changed. Prices that the catalogue does not name stay. Raises UserError."""
    table: dict[str, Any] = yaml.safe_load(file.read_text()) if file.exists() else {"regions": {}}
    regions = table["regions"]
    there = [sku for sku in (skus if skus is not None else _fetch()) if region in sku.get("serviceRegions", ())]
    if not there:
        raise UserError(f"the catalogue has nothing in {region}", "a region of Compute Engine", "gcloud compute regions list")
    before = regions.get(region) or {**yaml.safe_load(PRICES_FILE.read_text())["regions"]["us-central1"], "machines": {}}
    machines, changed = {}, []
    for name, machine in MACHINES.items():
        if machine.is_run:
            continue  # of parts, in the region's cloud_run section
        old = before["machines"].get(name, {})
        machines[name] = dict(old)
        for model in machine.provisioning:
            price = machine_price(machine, model, there)
            if price is None:
                continue
            known = old.get(model, {})
            if known.get("usd_per_hour") != price:
                changed.append(f"{name} {model}: {known.get('usd_per_hour', 'none')} -> {price} $/h")
            # Spot moves from month to month; the dearest seen is what a worst case is planned with.
            high = max(price, known.get("high_usd_per_hour", 0.0)) if model == "SPOT" else price
            machines[name][model] = {"usd_per_hour": price, "high_usd_per_hour": high}
    found = {name: models for name, models in machines.items() if models}
    regions[region] = {**before, "as_of": datetime.now(UTC).date().isoformat(), "source": "Google's billing catalogue", "machines": found}
    file.write_text(f"# Dollars. Written by `elson prices refresh`; do not edit.\n{yaml.safe_dump(table, sort_keys=False)}")
    return changed


def machine_price(machine: Machine, model: Provisioning, skus: list[dict[str, Any]]) -> float | None:
    """Dollars an hour of a machine, or None when a part has no price. Raises UserError when a part has two."""
    family = _FAMILY[machine.gce_type.split("-")[0]]
    parts = [
        (f"{family} Instance Core", float(machine.vcpus)),
        (f"{family} Instance Ram", float(machine.memory_gb)),
        (f"{_CARDS[machine.accelerator.type]} GPU", float(machine.count)),
    ]
    total = 0.0
    for words, amount in parts:
        price = _unit_price(words, model, skus)
        if price is None:
            return None
        total += price * amount
    return round(total, 4)


def _unit_price(words: str, model: Provisioning, skus: list[dict[str, Any]]) -> float | None:
    flexible = model == "FLEX_START"
    candidates = {
        sku["description"]: price
        for sku in skus
        if sku["category"]["usageType"] in _USAGE[model]
        and _has_words(sku["description"], words)
        and any(mark in sku["description"] for mark in ("DWS", "Flex")) == flexible
        and "Custom" not in sku["description"]
        and (price := _dollars(sku)) is not None
    }
    if len(set(candidates.values())) > 1:
        names = "; ".join(f"{name} ({price})" for name, price in sorted(candidates.items()))
        raise UserError(f"the catalogue has several prices for {words} {model}: {names}", "one", "write the right one into the price table by hand")
    return next(iter(candidates.values()), None)


def _has_words(description: str, words: str) -> bool:
    """Whether every word is in the description, and no other card's size."""
    there = description.replace(",", " ").split()
    return all(word in there for word in words.split()) and not ("A100" in words and "80GB" in there and "80GB" not in words)


def _dollars(sku: dict[str, Any]) -> float | None:
    """The price of the first paid tier, in dollars a unit and hour."""
    rates = sku["pricingInfo"][-1]["pricingExpression"]["tieredRates"] if sku.get("pricingInfo") else []
    for rate in rates:
        money = rate["unitPrice"]
        value = int(money.get("units", 0)) + money.get("nanos", 0) / 1e9
        if value:
            return float(value)
    return None


def _fetch() -> Iterator[dict[str, Any]]:
    """Every SKU of Compute Engine."""
    from google.auth.exceptions import GoogleAuthError
    from googleapiclient.discovery import build
    from googleapiclient.errors import Error

    try:
        skus = build("cloudbilling", "v1", cache_discovery=False).services().skus()
        request = skus.list(parent=SERVICE, currencyCode="USD", pageSize=5000)
        while request is not None:
            answer = request.execute(num_retries=3)
            yield from answer.get("skus", [])
            request = skus.list_next(request, answer)
    except GoogleAuthError as error:
        raise UserError(f"no Google credentials: {error}", "application default credentials", "gcloud auth application-default login") from None
    except (Error, OSError) as error:
        raise UserError(f"the billing catalogue does not answer: {error}", "an answer", "gcloud services enable cloudbilling.googleapis.com") from None
