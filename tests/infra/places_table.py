"""The table of places in infra/README.md: the real watchdog over simulated regions, with VMs and billed minutes.

.venv/bin/python -m tests.infra.places_table
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.infra.regions import Platform

PAGE = Path(__file__).resolve().parents[2] / "infra/README.md"
BEGIN, END = "<!-- python -m tests.infra.places_table -->", "<!-- end -->"
STOCKOUT, QUOTA, EVER = "ZONE_RESOURCE_POOL_EXHAUSTED", "QUOTA_EXCEEDED", float("inf")
THREE = [("us-central1", 15), ("us-east4", 15), ("europe-west4", 15)]


def _vanishes(_: object = None) -> Platform:
    def lives(place: int, born: float) -> float:
        return 20 - born if place == 0 and born < 20 else EVER

    return Platform(THREE, lambda _p, _m: "", is_away=lambda region, minute: region == "us-central1" and 20 <= minute < 200, lives=lives)


#: Name -> the platform; a training of 40 minutes may have 7 VMs and 150 minutes, and be asked for in three places, 15 minutes each.
SCENARIOS: dict[str, Callable[[], Platform]] = {
    "the first place has a VM": lambda: Platform(THREE, lambda _p, _m: ""),
    "a stockout everywhere for two hours": lambda: Platform(THREE, lambda _p, minute: STOCKOUT if minute < 120 else ""),
    "a stockout in the first place that never ends": lambda: Platform(THREE, lambda place, _m: STOCKOUT if place == 0 else ""),
    "two places take each VM after 7 minutes": lambda: Platform(THREE, lambda _p, _m: "", lives=lambda place, _b: 7.0 if place < 2 else EVER),
    "every place takes each VM after 7 minutes, and no checkpoint helps": lambda: Platform(
        THREE, lambda _p, _m: "", lives=lambda _p, _b: 7.0, needs_minutes=10_000
    ),
    "the region of a VM vanishes with it, and comes back after three hours": _vanishes,
    "the region of a VM does not answer for an hour; the VM works": lambda: Platform(
        THREE, lambda _p, _m: "", is_away=lambda region, minute: region == "us-central1" and 10 <= minute < 70
    ),
    "no quota anywhere": lambda: Platform(THREE, lambda _p, _m: QUOTA),
}


def table() -> list[str]:
    """Rows of Markdown, played here."""
    rows = ["| simulated | ends | after minutes | moves | VMs | billed minutes |", "|---|---|---:|---:|---:|---:|"]
    for name, make in SCENARIOS.items():
        with pytest.MonkeyPatch.context() as patch:
            run = make().play(600, patch)
        assert not run.alive and (run.status == "done" or not any(group.size for group in run.groups.values())), name
        given_up = [one for one in run.said if one["severity"] == "ERROR"]
        ends, minute = ("the job is done", run.minute) if run.status == "done" else ("the watchdog gives up", given_up[0]["minute"])
        moves = sum(one["message"].endswith("is asked") for one in run.said)
        rows.append(f"| {name} | {ends} | {minute:.0f} | {moves} | {run.made} | {run.billed:.0f} |")
    return rows


def main() -> None:
    text = PAGE.read_text()
    begin = text.index(BEGIN) + len(BEGIN)
    PAGE.write_text(text[:begin] + "\n".join(["", *table(), ""]) + text[text.index(END, begin) :])


if __name__ == "__main__":
    main()
