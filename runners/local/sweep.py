"""``elson sweep``: a grid of trainings on this machine, over one base model and one dataset, and a table with the best first.

Each training is the train stage of `elson run` and publishes its adapter under the id of its content. So one that is done is found and not run again,
also when `elson run` or another sweep made it; one that was killed goes on at its checkpoint; one that fails does not keep the others from running.
Nothing is merged, quantized or served.

    elson sweep --vary train.learning_rate=1e-4,2e-4 --vary train.rank=8,16
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runners import identity, log, outside, stages
from runners.artifacts import layout, local_bucket, registry, storage
from runners.artifacts.record import RECORD, Record
from runners.errors import Temporary, UserError
from runners.local import grid, sweep_report
from runners.local.grid import RESULTS, Outcome, Taken, Trial, Varied
from runners.local.run import ROOT, Run, kept_log, make_base, make_data, need_environments, process
from runners.pipeline import ADAPTERS
from runners.spec import DatasetSpec, Spec
from runners.training.examples import read_rows


@dataclass(frozen=True)
class Sweep:
    """A sweep: its name, where its files are, its plan in lines, and each training."""

    name: str
    folder: Path
    plan: list[str]
    outcomes: list[Outcome]

    def as_data(self) -> dict[str, Any]:
        """For machines, best first. A sweep that is only planned has no name yet: it is made of the ids of the trainings."""
        page, rows = self.folder / sweep_report.PAGE, [one.as_row() for one in grid.ranked(self.outcomes)]
        named = {"sweep": self.name, "report": str(page)} if page.exists() else {"sweep": None, "report": None}
        return {**named, "plan": self.plan, "runs": rows, "remarks": grid.remarks(self.outcomes)}


def sweep(base: Spec, varied: Sequence[Varied], home: Path, *, dry_run: bool = False, say: Callable[[str], None] = log.event) -> Sweep:
    """Plan, say so, and train what is missing. Raises UserError for what is refused, before anything is trained.

    Args:
        dry_run: plan only; nothing is written but the embedded bucket's empty folders, so a run may be under way there.
        say: is given the lines of the plan.
    """
    trials = grid.trials(base, varied)
    local_bucket.make_home(home)
    need_environments("tools", "train")
    job = Run(base, home, parts=("data", "base", *map(str, trials)))
    with local_bucket.running(home, base.buckets, reads_only=dry_run):
        pairs = _look_up(job) if dry_run else _data(job)
        grid.check(trials, pairs)
        found, finished = _outcomes(job.spec, varied, _processor_s(home)), _finished(job.spec, _processor_s(home))
        each = [grid.expected(one.trial, pairs, finished) for one in found if one.status != "done"]
        plan = grid.plan_lines(varied, found, each)
        for line in plan:
            say(line)
        if dry_run:
            return _named(job, home, plan, found)
        with kept_log(job):
            make_base(job)
        job.spec = registry.resolve(job.spec)
        made = _named(job, home, plan, _outcomes(job.spec, varied, _processor_s(home)))
        return _trained(job, made)


def _data(job: Run) -> int:
    """Build and publish the dataset; returns how many pairs there are to train on."""
    job.work.mkdir(parents=True, exist_ok=True)
    with kept_log(job):
        make_data(job)
    entry = registry.usable(job.spec.buckets, job.spec.dataset.name)
    job.spec = _resolved(job.spec, entry.id)
    return _pairs(job.work / "dataset-built")


def _look_up(job: Run) -> int:
    """The same without publishing anything."""
    from runners.corpus import build

    with tempfile.TemporaryDirectory() as folder:
        made = build.build(job.spec, ROOT, Path(folder) / "dataset")
        job.spec = _resolved(job.spec, made.dataset_id)
        return _pairs(made.folder)


def _resolved(spec: Spec, dataset_id: str) -> Spec:
    """The spec with its ids; the base model's is missing where it is not made yet."""
    entry = registry.read(spec.buckets, spec.base_model.name)
    base = spec.base_model.model_copy(update={"id": entry.id if entry and entry.status == "ready" else None})
    return identity.with_code(spec.model_copy(update={"base_model": base, "dataset": DatasetSpec(name=spec.dataset.name, id=dataset_id)}))


def _pairs(folder: Path) -> int:
    return len(read_rows(folder, "train"))


def _outcomes(spec: Spec, varied: Sequence[Varied], processor_s: dict[str, float]) -> list[Outcome]:
    """Each trial, with the record of its adapter where it is published, under any name."""
    published = {entry.id: entry for entry in registry.entries(spec.buckets) if entry.status == "ready"}
    found = []
    for trial in grid.trials(spec, varied):
        made_id = identity.stage_id(trial.spec, "train") if spec.base_model.id else ""
        entry = published.get(made_id)
        found.append(_outcome(trial, entry, processor_s.get(made_id)) if entry else grid.outcome(trial, made_id, None))
    return found


def _outcome(trial: Trial, entry: registry.Entry, processor_s: float | None) -> Outcome:
    record, place = _record_of(trial.spec, entry), f"the {RECORD} of {entry.name}"
    fix = f"elson run --from train makes it again; or restore {layout.model(trial.spec.buckets, entry.name)}/{RECORD}"
    return outside.shaped(lambda: grid.outcome(trial, entry.id, record, processor_s), place, "losses and steps as a training writes them", fix)


def _record_of(spec: Spec, entry: registry.Entry) -> Record:
    place = f"{layout.model(spec.buckets, entry.name)}/{RECORD}"
    stored = storage.read_json(place)
    if stored is None:
        raise UserError(f"{entry.name} has no {RECORD}", "the record of its training", f"elson run --from train makes it again; or restore {place}")
    record = outside.shaped(lambda: Record.model_validate(stored[0]), place, "the record of a training")
    if (record.id, record.name) != (entry.id, entry.name):
        raise UserError(f"{place} is the record of {record.name}, {record.id}", f"that of {entry.name}, {entry.id}", f"restore an older version of {place}")
    return record


def _finished(spec: Spec, processor_s: dict[str, float]) -> list[Taken]:
    """What other trainings of this base model took here, in the same precision. A record of another release, or a damaged one, counts for nothing."""
    found = []
    for one in registry.entries(spec.buckets) if spec.base_model.id else ():
        if one.kind in ADAPTERS and one.status == "ready" and one.parents.get("base_model") == spec.base_model.id:
            with contextlib.suppress(UserError, *outside.WRONG_SHAPE):
                record = _record_of(spec, one)
                found += [grid.taken(record, processor_s.get(one.id))] if record.metrics["precision"] == spec.train.precision else []
    return found


def _processor_s(home: Path) -> dict[str, float]:
    """Processor seconds of each training that any sweep of this home counted."""

    def read() -> dict[str, float]:
        rows = [row for file in sorted(home.glob(f"sweeps/*/{RESULTS}")) for row in outside.read_json(file)["runs"]]
        return {row["id"]: float(row["processor_s"]) for row in rows if row["processor_s"] is not None}

    return outside.shaped(read, f"{home}/sweeps", f"{RESULTS} as elson sweep writes it", f"delete {home}/sweeps: the next sweep writes it again")


def _named(job: Run, home: Path, plan: list[str], outcomes: list[Outcome]) -> Sweep:
    name = f"{job.spec.profile}-{outside.digest(sorted(one.id for one in outcomes))}"
    return Sweep(name, home / "sweeps" / name, plan, outcomes)


def _trained(job: Run, made: Sweep) -> Sweep:
    """Run what is missing, one after the other. The files of the sweep are written after each."""
    for place, one in enumerate(made.outcomes):
        if one.status == "done":
            job.begin(str(one.trial), "done already")
            continue
        made.outcomes[place] = _train(job, one)
        _write(job, made)
    _write(job, made)
    return made


def _train(job: Run, wanted: Outcome) -> Outcome:
    """One training, in a folder of its own: the checkpoints of another one would be in its way."""
    trial, work = wanted.trial, job.work / "sweep" / wanted.id
    uri = stages.save_spec(trial.spec)
    with kept_log(job):
        job.begin(str(trial))
        _provide(job, work)
        try:
            with job.watch.phase(str(trial)):
                process(job, f"train ({trial})", "train", ["train", "--spec", uri, "--work", str(work)])
        except Temporary:
            raise
        except UserError as error:
            reason = _last_error(job.log_file) or error.found
            log.warning("the sweep goes on without this training", training=str(trial), reason=reason)
            return replace(wanted, status="failed", reason=reason)
    shutil.rmtree(work)
    entry = registry.usable(trial.spec.buckets, identity.model_name(trial.spec, "train"))
    resumed = _record_of(trial.spec, entry).metrics["resumed_from_step"]
    return _outcome(trial, entry, None if resumed else job.watch.phases[-1].processor_s)


def _provide(job: Run, work: Path) -> None:
    """Base model and dataset for a training, by hard links: they take no room, and a damaged one is replaced without touching the others'."""
    for folder in (stages.base_folder(job.spec, job.work), stages.dataset_folder(job.spec, job.work)):
        shutil.rmtree(work / folder.name, ignore_errors=True)
        shutil.copytree(folder, work / folder.name, copy_function=os.link)


def _last_error(file: Path) -> str:
    """The first line of the error that ended a stage; a killed process may have left half a line."""
    said = ""
    for line in file.read_text(errors="replace").splitlines() if file.exists() else ():
        with contextlib.suppress(ValueError, TypeError, KeyError):
            row = json.loads(line)
            said = str(row["message"]) if row["severity"] == "ERROR" else said
    return outside.printable(said.partition("\n")[0][:300])


def _write(job: Run, made: Sweep) -> None:
    made.folder.mkdir(parents=True, exist_ok=True)
    sweep_report.write(job.spec, made.name, made.outcomes, made.folder)
    outside.write_durably(made.folder / RESULTS, json.dumps(made.as_data(), indent=1))
