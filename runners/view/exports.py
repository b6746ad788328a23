"""A bucket's runs in the forms other tools read: CSV, TensorBoard event files, Weights & Biases or Trackio."""

from __future__ import annotations

import csv
import importlib
from pathlib import Path
from typing import Any

from runners import outside
from runners.errors import UserError
from runners.view.runs import Bucket, RunView
from runners.view.screens import flat


def as_csv(bucket: Bucket, out: Path) -> list[Path]:
    """``runs.csv`` (a row a run), ``steps.csv`` (a row an optimizer step), ``cases.csv`` (a row a case and model)."""
    runs = [_figures(run) for run in bucket.runs]
    steps = [{"run": run.id, **row} for run in bucket.runs for row in run.training.get("history", ())]
    cases = [
        {"run": run.id, "model": variant, "case": case.id, "domain": case.category, "kind": case.kind, "passed": case.passed, "failure": case.failure}
        | {"latency_ms": round(case.latency_ms, 1), "question": case.question, "answer": case.answer}
        for run in bucket.runs
        for variant, found in run.results.items()
        for case in found.cases
    ]
    out.mkdir(parents=True, exist_ok=True)
    return [_table(out / f"{name}.csv", rows) for name, rows in (("runs", runs), ("steps", steps), ("cases", cases))]


def as_tensorboard(bucket: Bucket, out: Path) -> list[Path]:
    """A folder of event files for each run; `tensorboard --logdir` shows them."""
    writer = _client("tensorboardX", "TensorBoard event files").SummaryWriter
    folders = []
    for run in bucket.runs:
        with writer(str(out / run.id)) as events:
            for step, values in _curves(run):
                for name, value in values.items():
                    events.add_scalar(name, value, step)
        folders.append(out / run.id)
    return folders


def to_tracker(bucket: Bucket, client: str, project: str) -> int:
    """Log every run to Weights & Biases or Trackio, whose clients share an interface; returns how many."""
    tracker = _client(client, client)
    for run in bucket.runs:
        tracker.init(project=project, name=run.name, config=flat(run.spec))
        for step, values in _curves(run):
            tracker.log(values, step=step)
        tracker.log({key: value for key, value in _figures(run).items() if isinstance(value, (int, float))})
        tracker.finish()
    return len(bucket.runs)


def _curves(run: RunView) -> list[tuple[int, dict[str, float]]]:
    """(step, values) of the training, in order."""
    found: dict[int, dict[str, float]] = {}
    for row in run.training.get("history", ()):
        values = {f"train/{key}": float(row[key]) for key in ("loss", "learning_rate") if key in row}
        if row.get("seconds"):
            values["train/tokens_per_s"] = row["tokens"] / row["seconds"]
        found.setdefault(row["step"], {}).update(values)
    for row in run.training.get("validation", ()):
        found.setdefault(row["step"], {})["validation/loss"] = float(row["loss"])
    return sorted(found.items())


def _figures(run: RunView) -> dict[str, Any]:
    found = run.result
    return {
        "run": run.id,
        "name": run.name,
        "dataset": run.dataset,
        "finished_at": run.finished_at,
        "loss_before": run.training.get("validation_loss_before"),
        "loss_after": run.training.get("validation_loss_after"),
        "gates_failed": sum(not gate.passed for _, gate in run.gates),
        "cases": found.overall.cases if found and found.overall else None,
        "cases_passed": found.overall.passed if found and found.overall else None,
        "usd": run.usd,
        "seconds": round(run.seconds, 1),
        **{f"spec.{key}": value for key, value in flat(run.spec).items() if isinstance(value, (str, int, float, bool))},
    }


def _table(file: Path, rows: list[dict[str, Any]]) -> Path:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows({key: outside.cell(value) for key, value in row.items()} for row in rows)
    return file


def _client(module: str, what: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise UserError(f"{module} is not installed", f"the client, for {what}", f"pip install {module} into this environment") from None
