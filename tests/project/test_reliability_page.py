"""The reliability page says what its record says, and a kill that changes a result is seen."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from tests.benchmarks import kills, reliability
from tests.benchmarks.stage_kills import killed


def test_the_page_is_made_of_its_record_alone() -> None:
    kept = json.loads(reliability.PAGE.with_suffix(".json").read_text())
    assert reliability.PAGE.read_text() == reliability.page(kept)
    assert set(kept) <= set(reliability.TITLES)
    for name, row in kept.items():
        assert row["result"]["tried"] > 0 and row["command"] and row["date"], name


def test_a_kill_is_counted_only_when_it_ended_work(tmp_path: Path) -> None:
    assert killed(lambda: None, 20) == 0
    assert killed(lambda: time.sleep(60), 0.2) is None
    assert killed(lambda: (_ for _ in ()).throw(ValueError()), 20) == 1
    assert killed(lambda: os.write(os.open(tmp_path / "made", os.O_CREAT | os.O_WRONLY), b"x"), 20) == 0 and (tmp_path / "made").read_text() == "x"


def test_a_row_adds_up() -> None:
    assert kills.tally(9, 3, 1, 1) == {"tried": 9, "lost": 2, "results compared": 3, "different": 1, "failed": 1}
