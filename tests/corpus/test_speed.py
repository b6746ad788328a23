"""What the page says of a build's speed (tests/benchmarks/corpus_speed.py): its tables are those of the record, and datatrove is counted as the others are."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from tests.benchmarks import corpus_speed as speed

PAGE = Path(speed.__file__).with_name("CORPUS.md").read_text()


def test_the_page_has_each_row_of_the_record() -> None:
    runs = json.loads(speed.RECORD.read_text())
    rows = [line for line in speed.table(runs).splitlines() if line and not line.startswith("|---")]
    counted = sum(len(run["builds"]) + len([row for row in run["near"] if "skipped" not in row]) for run in runs)
    assert len(rows) == counted + 2 and [row for row in rows if row not in PAGE] == []


def test_the_goal_that_the_page_calls_reached_is_reached_by_the_record() -> None:
    (million,) = [row for run in json.loads(speed.RECORD.read_text()) for row in run["builds"] if row["text"] == "figures" and row["pairs"] == 1_000_000]
    assert million["seconds"] <= 4 * 60 and million["peak_mib"] <= 1.5 * 1024


def test_of_datatrove_all_of_a_cluster_count_as_twins_as_of_the_other_engines() -> None:
    """datatrove removes all but one of a cluster; who counts what is removed finds half of the pairs of twins."""
    cluster_of = {0: 7, 3: 7, 4: 9, 8: 9, 11: 9, 12: 13}
    content = b"".join(struct.pack("<I", number) for row in cluster_of.items() for number in row)
    assert speed.members([content]) == {0, 3, 4, 8, 11}
    assert speed.members([]) == set()
