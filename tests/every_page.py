"""Pictures of every page, from a real run and drawn by the code as it is now, in four forms: 390 and 1366 px wide, light and dark.

    .venv/bin/python -m tests.every_page .elson OUT        after `make demo`; OUT gets the pages, the pictures and what the browser found wrong

The run's records, answers and cases are read from its bucket; nothing in the folder of the run is changed. The machines are states in the shape that
a VM writes; the load is the record beside the benchmarks. The terminal's are in ``tests/every_terminal.py``.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from runners.artifacts import local_bucket
from runners.corpus import build
from runners.evaluation import load
from runners.evaluation import report as evaluation
from runners.local import report
from runners.local.run import load_profile
from runners.pages import page
from runners.spec import Spec
from runners.view import now, runs, site
from runners.vm import decide
from tests.browser import Browser

ROOT = Path(__file__).resolve().parent.parent
FORMS = tuple(itertools.product((390, 1366), (False, True)))


def draw(home: Path, profile: str, out: Path) -> list[Path]:
    """Every page of the runs in a home, drawn into ``out``."""
    settings = load_profile(profile)
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for part in ("bucket", "work"):
            shutil.copytree(home / part, copy / part, symlinks=True, ignore=shutil.ignore_patterns("*.safetensors"))
        with local_bucket.running(copy, settings.buckets, reads_only=True):
            site.export(settings.buckets, str(home), copy, out / "view")
            bucket = runs.load(settings.buckets, str(home), copy)
        build.build(settings, ROOT, copy / "dataset")
        shutil.copyfile(copy / "dataset" / build.REPORT, out / "dataset.html")
    summaries = {summary["served_id"]: summary for file in home.glob("runs/*/summary.json") for summary in (json.loads(file.read_text()),)}
    for run in bucket.runs:
        if (entry := run.entries.get("quantize")) and entry.id in summaries:
            found = {name: run.results[name] for name in runs.VARIANTS if name in run.results}
            page.write(out / "report.html", report.document(Spec.model_validate(run.spec), run.records, found, summaries[entry.id]))
            for name, result in found.items():
                page.write(out / f"evaluation-{name}.html", evaluation.document(result))
    page.write(out / "machines.html", now.jobs(runs.Bucket(str(home), (), tuple(states()))))
    levels = [load.Level(**row) for row in json.loads((ROOT / "tests" / "benchmarks" / "load.json").read_text())]
    page.write(out / "load.html", load.document(load.LoadRequest("http://127.0.0.1:8000", "elson", ROOT), levels, floor_ms=None))
    return sorted(out.rglob("*.html"))


def states() -> Iterator[dict[str, Any]]:
    """Jobs as their machines write them: one that works on its second machine, one that lost its machine, one that is done, a server, one that failed."""
    at = datetime.now(UTC)
    boots = tuple(
        decide.Boot(name, f"elson-train-{name}", "us-central1-a", (at - timedelta(minutes=ago)).isoformat(), lived_s=60.0 * lived)
        for name, ago, lived in (("7c2f", 64, 21), ("p0q9", 38, 37))
    )
    rest = {"max_attempts": 3, "machine": {"project": "a-project", "region": "us-central1", "group": "elson-train-0b75369b"}}
    train = decide.Job("train-0b75369b", "train", boots=boots, earlier_s=1260, attempts=1, updated_at=at.isoformat(timespec="seconds"))
    why = "the gate refused: mean KL, quantized against merged is 0.41 (at most 0.3)"
    serve = replace(train, job_id="serve-51d7", role="serve", boots=boots[:1], status="ready", earlier_s=0)
    for job, left in (
        (replace(train, status="running", stage="train"), 122.0),
        (replace(train, job_id="train-5a10", status="preempted", stage="quantize", reason="quantize was stopped: preempted"), 122.0),
        (replace(train, job_id="train-99e1", status="done", reason="published"), 122.0),
        (replace(train, job_id="train-c0de", status="failed", stage="quantize", reason=why, attempts=3), 41.5),
        (serve, None),
    ):
        yield job.to_json() | rest | {"minutes_left": left}


def main(home: Path, out: Path, profile: str = "local") -> int:
    """Draw, take the pictures, print each page's height and faults; returns how many pages have one."""
    files = draw(home, profile, out)
    faulty = 0
    with Browser() as browser:
        for file, (width, dark) in itertools.product(files, FORMS):
            shown = browser.open(file, width=width, dark=dark)
            name = f"{file.relative_to(out).with_suffix('').as_posix().replace('/', '-')[:60]}-{width}-{'dark' if dark else 'light'}"
            height, faults = shown.run("document.documentElement.scrollHeight"), shown.faults()
            shown.picture(out / f"{name}.png")
            faulty += bool(faults)
            print(f"{name}: {height:,} px", faults or "")
    return faulty


if __name__ == "__main__":
    sys.exit(bool(main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])))
