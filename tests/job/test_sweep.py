"""A sweep over what a run made: found, killed, gone on with, one training failing; then a run finds what the sweep made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.job.conftest import job, left_behind, profile

#: The run's own rate, one that learns, and one that cannot.
VARY = ("--vary", "train.learning_rate=0.002,0.004,1e40")


def test_a_sweep_is_killed_and_goes_on_and_runs_nothing_twice(prepared: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(prepared / "bucket", home / "bucket")
    first = job(home, *VARY, command="sweep", kill_when=lambda row: row.get("message") == "train" and row.get("done", 0) >= 7)
    assert first.code == -9, first.stderr[-3000:]
    said = [row["message"] for row in first.log]
    assert any("3 trainings: 1 done already, 2 to run" in line for line in said)
    assert any(line.startswith("time     about ") for line in said), "by the run's training"

    second = job(home, *VARY, command="sweep")
    assert second.code == 1, second.stderr[-3000:]
    assert left_behind(home) == []
    assert [row["message"] for row in second.log].count("training") == 2, "one went on, one failed; the run's was found"
    assert any(row["message"] == "going on from a checkpoint" for row in second.log)
    rows = {row["train.learning_rate"]: row for row in second.summary["runs"]}
    assert [row["status"] for row in second.summary["runs"]] == ["done", "done", "failed"]
    assert rows[0.004]["after"] < rows[0.004]["before"] == rows[0.002]["before"]
    assert "loss" in rows[1e40]["reason"]
    folder = Path(second.summary["report"]).parent
    assert json.loads((folder / "sweep.json").read_text())["runs"] == second.summary["runs"]
    assert "0.004" in (folder / "report.html").read_text() and "0.004" in (folder / "sweep.csv").read_text()
    assert sorted(place.name for place in (home / "work" / "tiny" / "sweep").iterdir()) == [rows[1e40]["id"]], "what is published leaves no copy"

    third = job(home, "--until", "train", profile=profile(tmp_path, train={"learning_rate": 0.004}))
    assert third.code == 0, third.stderr[-3000:]
    assert "train" in third.summary["skipped"]
