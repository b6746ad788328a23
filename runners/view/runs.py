"""What a bucket knows of its runs, read and put together; nothing here writes, and nothing that cannot be read hides the rest.

A run is a trained adapter with what was made of it: the merged and the quantized model, and every evaluation of one of them (or of the base
model it began with), at home and in the cloud alike.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runners import outside
from runners.artifacts import layout, local_bucket, registry, storage
from runners.artifacts.record import RECORD, Record
from runners.artifacts.registry import Entry
from runners.errors import UserError
from runners.evaluation.results import EvaluationResult
from runners.local import grid
from runners.local.grid import RESULTS, Outcome
from runners.pipeline import ADAPTERS, QUANTIZED
from runners.spec import BucketSpec

#: The models that one run's answers are compared over, in the order of the work.
VARIANTS = ("base", "tuned", "quantized")
#: What may become part of a page's file name.
_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,120}")


@dataclass(frozen=True)
class RunView:
    """One run. ``records`` by stage; ``results`` by variant, the newest of each; ``report`` is the summary of an `elson run`, if one was drawn."""

    id: str
    name: str
    records: dict[str, Record]
    entries: dict[str, Entry]
    results: dict[str, EvaluationResult] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    in_production: bool = False

    @property
    def training(self) -> dict[str, Any]:
        """Metrics of the training."""
        return self.records["train"].metrics if "train" in self.records else {}

    @property
    def spec(self) -> dict[str, Any]:
        """The resolved spec."""
        return next((record.spec for record in self.records.values()), {})

    @property
    def dataset(self) -> str:
        """Id of the dataset."""
        return self.records["train"].parents.get("dataset", "") if "train" in self.records else ""

    @property
    def finished_at(self) -> str:
        """When the last stage ended."""
        return max((record.finished_at for record in self.records.values()), default="")

    @property
    def seconds(self) -> float:
        """Time of all stages."""
        return sum(phase.seconds for record in self.records.values() for phase in record.phases)

    @property
    def usd(self) -> float | None:
        """Dollars of all stages; None at home."""
        costs = [record.cost.usd for record in self.records.values() if record.cost]
        return sum(costs) if costs else None

    @property
    def gates(self) -> list[tuple[str, Any]]:
        """(stage, gate) of every gate."""
        return [(stage, gate) for stage, record in self.records.items() for gate in record.gates]

    @property
    def result(self) -> EvaluationResult | None:
        """The evaluation of what is served: the quantized model, else the tuned one."""
        return self.results.get("quantized") or self.results.get("tuned")


@dataclass(frozen=True)
class SweepView:
    """One `elson sweep` of this machine: its name, and its trainings, the best first."""

    name: str
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class Bucket:
    """Everything that is shown."""

    where: str
    runs: tuple[RunView, ...]
    jobs: tuple[dict[str, Any], ...] = ()
    problems: tuple[str, ...] = ()
    under_way: tuple[dict[str, Any], ...] = ()
    holder: str = ""
    sweeps: tuple[SweepView, ...] = ()

    def run(self, run_id: str) -> RunView | None:
        """A run by its id."""
        return next((run for run in self.runs if run.id == run_id), None)

    def sweep(self, name: str) -> SweepView | None:
        """A sweep by its name."""
        return next((sweep for sweep in self.sweeps if sweep.name == name), None)


def load(buckets: BucketSpec, where: str, home: Path | None = None) -> Bucket:
    """Read the bucket. What is corrupt is named in ``problems`` and left out."""
    problems: list[str] = []
    entries = _entries(buckets, problems)
    evaluations = _evaluations(buckets, problems)
    live = _tolerant(problems, lambda: registry.production(buckets)) or {}
    runs = [_run(buckets, entry, entries, evaluations, live.get("id"), problems) for entry in entries if entry.kind in ADAPTERS]
    jobs = _jobs(buckets, problems)
    rows, holder = under_way(home) if home else ([], "")
    found = sorted(runs, key=lambda run: run.finished_at, reverse=True)
    swept = _sweeps(home, problems) if home else []
    return Bucket(where, tuple(found), tuple(jobs), tuple(problems), tuple(rows), holder, tuple(swept))


def pairs(buckets: BucketSpec, dataset_id: str) -> list[dict[str, Any]]:
    """The rows of a dataset, training and validation. Raises UserError where the dataset is not there."""
    import json

    rows = []
    for split in ("train", "validation"):
        found = storage.read(f"{layout.dataset(buckets, dataset_id)}/{split}.jsonl")
        if found is None:
            continue
        for line in found[0].decode(errors="replace").splitlines():
            try:
                rows.append({**json.loads(line), "split": split})
            except (ValueError, TypeError, RecursionError):
                continue
    if not rows:
        raise UserError(f"there is no dataset {dataset_id} in {buckets.models}", "a published dataset", "elson models ls")
    return rows


def under_way(home: Path) -> tuple[list[dict[str, Any]], str]:
    """Log lines of the command that writes to the embedded bucket (without one, of the last run), and which command it is."""
    import json

    holder = local_bucket.holder(home)
    since = holder["since"][:19] if holder else ""
    logs = sorted((home / "work").glob("*.jsonl"), key=lambda file: file.stat().st_mtime)
    rows = []
    for line in logs[-1].read_text(errors="replace").splitlines() if logs else ():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("message"), str) and str(row.get("time", ""))[:19] >= since:
            rows.append(row)
    return rows, f"{holder['command']} (pid {holder['pid']})" if holder else ""


def _sweeps(home: Path, problems: list[str]) -> list[SweepView]:
    """The sweeps of this machine, newest first."""
    files = sorted(home.glob(f"sweeps/*/{RESULTS}"), key=lambda file: file.stat().st_mtime, reverse=True)
    found = [_tolerant(problems, lambda file=file: _sweep(file)) for file in files if _PLAIN.fullmatch(file.parent.name)]
    return [one for one in found if one and one.outcomes]


def _sweep(file: Path) -> SweepView:
    def read() -> tuple[Outcome, ...]:
        found = grid.ranked([Outcome.of_row(row) for row in outside.read_json(file)["runs"]])
        if found:
            grid.text(found)  # What cannot be written as a table is told apart here.
        return tuple(found)

    return SweepView(file.parent.name, outside.shaped(read, str(file), f"{RESULTS} as elson sweep writes it", f"delete {file.parent}"))


def _entries(buckets: BucketSpec, problems: list[str]) -> list[Entry]:
    listed = _tolerant(problems, lambda: [item.path for item in storage.listing(layout.registry(buckets))]) or []
    names = [path.removesuffix(".json") for path in sorted(listed) if path.endswith(".json")]
    found = [_tolerant(problems, lambda name=name: registry.read(buckets, name)) for name in names]
    return [entry for entry in found if entry and _PLAIN.fullmatch(entry.id) and _PLAIN.fullmatch(entry.name)]


def _evaluations(buckets: BucketSpec, problems: list[str]) -> list[tuple[EvaluationResult, dict[str, Any]]]:
    """Every result in the bucket with the summary beside it, oldest first."""
    folder = f"{buckets.models}/runs"
    paths = sorted(item.path for item in _tolerant(problems, lambda: storage.listing(folder)) or [])
    found = []
    for path in paths:
        if not path.endswith("results.json"):
            continue
        result = _tolerant(problems, lambda path=path: _result(f"{folder}/{path}"))
        summary = storage.read_json(f"{folder}/{path.split('/')[0]}/summary.json") if f"{path.split('/')[0]}/summary.json" in paths else None
        if result:
            found.append((result, summary[0] if summary else {}))
    return sorted(found, key=lambda pair: pair[0].finished_at)


def _result(uri: str) -> EvaluationResult | None:
    found = storage.read_json(uri)
    return EvaluationResult.model_validate(found[0]) if found else None


def _run(buckets: BucketSpec, adapter: Entry, entries: list[Entry], evaluations: list[Any], live_id: str | None, problems: list[str]) -> RunView:
    family = {"train": adapter}
    for entry in entries:
        if entry.parents.get("adapter") == adapter.id and entry.kind in ("merged", "eagle3", *QUANTIZED):
            family[{"merged": "merge", "eagle3": "head"}.get(entry.kind, "quantize")] = entry
    records = {}
    for stage, entry in family.items():
        stored = _tolerant(problems, lambda entry=entry: storage.read_json(f"{layout.model(buckets, entry.name)}/{RECORD}"))
        record = _tolerant(problems, lambda stored=stored: Record.model_validate(stored[0])) if stored else None
        if record:
            records[stage] = record
    variants = {adapter.parents.get("base_model"): "base", family["train"].id: "tuned"}
    variants |= {family[stage].id: name for stage, name in (("merge", "tuned"), ("quantize", "quantized")) if stage in family}
    results: dict[str, EvaluationResult] = {}
    summary: dict[str, Any] = {}
    for result, beside in evaluations:
        if variant := variants.get(result.model.get("id")):
            results[variant] = result
            summary = beside if variant == "quantized" else summary
    in_production = any(entry.id == live_id for entry in family.values())
    return RunView(adapter.id, adapter.name, records, family, results, summary, in_production)


def _jobs(buckets: BucketSpec, problems: list[str]) -> list[dict[str, Any]]:
    from runners.cloud import jobs

    listed = _tolerant(problems, lambda: jobs.names(buckets)) or []
    found = [_tolerant(problems, lambda name=name: jobs.state(buckets, name)) for name in listed]
    return [job for job in found if job]


def _tolerant(problems: list[str], read: Any) -> Any:
    """What ``read`` gives, or None with its fault noted: one bad object must not hide all others."""
    try:
        return read()
    except UserError as error:
        problems.append(error.found)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problems.append(f"an object of another shape: {str(error).splitlines()[0][:200]}")
    return None
