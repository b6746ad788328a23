"""``elson run``: the whole job on this machine, with the same stages, locks and bucket layout as in the cloud.

Each stage runs as its own process in its own environment and leaves its result in the bucket; a stage whose result is there is not run again.
So a run that was killed anywhere goes on when it is started again, and a second run takes seconds.

    elson run --profile local
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runners import environments, identity, log, outside, spec, stages
from runners.artifacts import drafts, layout, local_bucket, registry, storage
from runners.artifacts.record import Stopwatch
from runners.errors import Temporary, UserError, did_you_mean, nearest
from runners.local import measure
from runners.local.memory import PeakMemory, processor_s
from runners.pipeline import MAKERS, Stage
from runners.processes import CHILD, bound
from runners.spec import Spec

STAGES = ("base", "data", "train", "merge", "quantize", "evaluate")
#: What a person sees pass by, in order.
PARTS = (*STAGES[:-1], "evaluate base", "evaluate tuned", "serve", "evaluate")
ROOT = environments.ROOT
#: The log of a run, kept beside its report.
LOG = "log.jsonl"
#: Base models that can be made here, by registry name.
BASES = {"smollm2-135m-instruct": "smollm2", "tiny-random-qwen2": "tiny"}


@dataclass
class Run:
    """One run: where it works, what it found, how long each part took."""

    spec: Spec
    home: Path
    watch: Stopwatch = field(default_factory=lambda: Stopwatch(processor_s))
    peak_mib: dict[str, float] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    parts: tuple[str, ...] = PARTS

    def begin(self, part: str, note: str = "") -> None:
        """Say which part of how many begins."""
        log.event(f"stage {self.parts.index(part) + 1} of {len(self.parts)}: {part}{f', {note}' if note else ''}")

    @property
    def work(self) -> Path:
        """Folder of downloads and results of this profile."""
        return self.home / "work" / self.spec.profile

    @property
    def log_file(self) -> Path:
        """The log of the run of this profile that is under way, or was the last."""
        return self.home / "work" / f"{self.spec.profile}.jsonl"


def load_profile(name: str) -> Spec:
    """The spec of a profile: a name below ``runners/profiles`` or a YAML file."""
    file = Path(name) if name.endswith((".yaml", ".yml")) else ROOT / "runners" / "profiles" / f"{name}.yaml"
    if not file.exists():
        known = sorted(path.stem for path in (ROOT / "runners" / "profiles").glob("*.yaml"))
        raise UserError(
            f"there is no profile {name}{did_you_mean(name, known)}",
            f"one of {', '.join(known)}, or a YAML file",
            f"elson run --profile {nearest(name, known) or 'local'}",
        )
    return spec.load(file)


def run(wanted: Spec, home: Path, *, redo_from: str | None = None, until: str | None = None, keep_serving: bool = False) -> dict[str, Any]:
    """Run every stage whose result is missing; returns the summary.

    Args:
        redo_from: throw away the results of this stage and all later ones first.
        until: the last stage to run.
    """
    local_bucket.make_home(home)
    need_environments("tools", "train", "quantize", "serve")
    job = Run(wanted, home, parts=_parts(wanted, until))
    job.work.mkdir(parents=True, exist_ok=True)
    with local_bucket.running(home, wanted.buckets), kept_log(job):
        if redo_from in ("base", "data"):
            _throw_away(job, redo_from)
        make_base(job)
        make_data(job)
        job.spec = registry.resolve(job.spec)
        if redo_from not in (None, "base", "data"):
            _throw_away(job, redo_from)
        uri = stages.save_spec(job.spec)
        if until in ("base", "data"):
            return _so_far(job)
        for stage in (stage for stage in MAKERS if not stage.inside):
            _stage(job, stage, uri)
            if until == stage.name:
                return _so_far(job)
        served = registry.usable(wanted.buckets, identity.model_name(job.spec, "quantize"))
        job.spec = job.spec.model_copy(update={"serve": drafts.with_model(job.spec.serve, job.spec.buckets, served)})
        return _evaluated(job, served, keep_serving=keep_serving, redo_from=redo_from)


def need_environments(*names: str) -> None:
    """Raise UserError when an environment is not installed as its lock says."""
    if missing := [name for name in names if not environments.is_complete(name)]:
        raise UserError(
            f"the environments {', '.join(missing)} are not installed, or older than their locks",
            f"all of {', '.join(names)}",
            f"python3 -m runners.installation {' '.join(missing)}",
        )


def _parts(wanted: Spec, until: str | None) -> tuple[str, ...]:
    """The parts that this run has: without a comparison where the spec asks for none."""
    parts = [part for part in PARTS if wanted.evaluate.compared_cases != 0 or not part.startswith("evaluate ")]
    return tuple(parts[: parts.index(until) + 1] if until else parts)


@contextmanager
def kept_log(job: Run) -> Iterator[None]:
    """Every line of this run, its stages' too, also goes to a file: `elson view` follows it."""
    file = job.log_file
    file.unlink(missing_ok=True)
    os.environ["ELSON_LOG_FILE"] = str(file.resolve())
    try:
        yield
    finally:
        os.environ.pop("ELSON_LOG_FILE", None)


def _so_far(job: Run) -> dict[str, Any]:
    """The summary of a run that was told to stop before serving."""
    published = [{"name": entry.name, "kind": entry.kind, "id": entry.id} for entry in registry.entries(job.spec.buckets)]
    return {
        "profile": job.spec.profile,
        "published": published,
        "phases": [p.model_dump() for p in job.watch.phases],
        "skipped": job.skipped,
        "peak_mib": job.peak_mib,
    }


def make_base(job: Run) -> None:
    """Make the base model and publish it, if it is not there."""
    name = job.spec.base_model.name
    if (entry := registry.read(job.spec.buckets, name)) and entry.status == "ready":
        job.skipped.append("base")
        job.begin("base", "done already")
        return
    if name not in BASES:
        raise UserError(
            f"the base model {name} is not in the bucket",
            f"a published base model, or one that can be made here: {', '.join(BASES)}",
            f"elson base publish {name} --from DIR --local",
        )
    job.begin("base")
    folder = job.work / "base-made"
    shutil.rmtree(folder, ignore_errors=True)
    with job.watch.phase("base"):
        process(job, "base", "train", ["base", "make", BASES[name], "--out", str(folder)])
        stages.publish_base(job.spec.buckets, folder, name)
    shutil.rmtree(folder, ignore_errors=True)


def make_data(job: Run) -> None:
    """Build the dataset and publish it. Building takes a second or two, so it is always done: edited sources are noticed."""
    from runners.corpus import build

    job.begin("data")
    with job.watch.phase("data"):
        result = build.build(job.spec, ROOT, job.work / "dataset-built")
        name = f"{job.spec.dataset.name}-{result.dataset_id.removeprefix('data-')[:8]}"
        stages.publish_dataset(job.spec.buckets, job.work / "dataset-built", name)
    job.spec = job.spec.model_copy(update={"dataset": spec.DatasetSpec(name=name)})


def _stage(job: Run, stage: Stage, uri: str) -> None:
    name = stage.name
    made = [name, *(other.name for other in MAKERS if other.inside == name and job.spec.head)]
    if all(registry.complete(job.spec.buckets, identity.model_name(job.spec, one), identity.stage_id(job.spec, one)) for one in made):
        job.begin(name, "done already")
        job.skipped.append(name)
        return
    job.begin(name)
    with job.watch.phase(name):
        process(job, name, stage.image, [name, "--spec", uri, "--work", str(job.work)])


def process(job: Run, stage: str, environment: str, arguments: list[str]) -> None:
    """Run ``python -m runners`` in a stage's environment; its error is ours."""
    command = [str(environments.python(environment)), "-m", "runners", *arguments]
    own = {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1", "TOKENIZERS_PARALLELISM": "false", CHILD: "1"}
    # On a terminal the stage draws its own bar; elsewhere each line passes here, so that a library's is a line of the log too.
    stderr = None if sys.stderr.isatty() else subprocess.PIPE
    child = subprocess.Popen(bound(command), env={**os.environ, **own}, stdout=subprocess.DEVNULL, stderr=stderr)
    try:
        with PeakMemory(child.pid) as peak:
            for line in child.stderr or ():
                log.relay(line.decode(errors="replace"))
            code = child.wait()
    except BaseException:
        child.terminate()
        child.wait()
        raise
    job.peak_mib[stage] = peak.mib
    if code == -signal.SIGINT:  # Ctrl-C reached the stage first
        raise KeyboardInterrupt
    if code:
        raise (Temporary if code == Temporary.exit_code else UserError)(
            f"the {stage} stage ended with code {code}", "0; its message is above", "fix that, then run the same command again: finished stages are kept"
        )


def _evaluated(job: Run, served: registry.Entry, *, keep_serving: bool, redo_from: str | None) -> dict[str, Any]:
    """Measure what was published beside its base and its tuned model, draw the report, unless this very model was measured already."""
    from runners.local import report

    buckets = job.spec.buckets
    benchmark = ROOT / job.spec.evaluate.benchmark
    decides = [spec.spec_digest(job.spec), served.id, measure.cases_digest(benchmark), measure.scorer_digest()]
    run_id = f"{job.spec.profile}-{outside.digest(decides)}"
    place = layout.run(buckets, run_id)
    local = job.home / "runs" / run_id
    if not redo_from and not keep_serving and (found := storage.read_json(f"{place}/summary.json")):
        job.begin("evaluate", "done already")
        storage.download(place, local, label="report")
        return {**found[0], "report": str(local / "report.html"), "skipped": [*job.skipped, "evaluate"]}
    if redo_from:
        shutil.rmtree(local, ignore_errors=True)
    # What a killed evaluation left is kept: it goes on at the next case.
    local.mkdir(parents=True, exist_ok=True)
    results = {other.name: measure.measure_other(job, other, benchmark, redo_from=redo_from) for other in measure.others(job.spec, job.work)}
    results["quantized"] = measure.measure_served(job, served, benchmark, local / "evaluation", keep_serving=keep_serving)
    summary = report.write(job.spec, run_id, served, results, job.watch, job.peak_mib, stages.base_folder(job.spec, job.work), local)
    shutil.copyfile(job.log_file, local / LOG)
    storage.delete(place)
    storage.upload(local, place, label="upload report")
    return {**summary, "report": str(local / "report.html"), "skipped": job.skipped}


def _throw_away(job: Run, first: str) -> None:
    """Forget the results of a stage and of those after it; only ever in the embedded bucket, and only names made by this profile."""
    later = STAGES[STAGES.index(first) :]
    prefixes = {"base": (job.spec.base_model.name,), "data": (f"{job.spec.dataset.name.rpartition('-')[0] or job.spec.dataset.name}-",)}
    kinds = {identity.kind_of(job.spec, stage.name): stage.inside or stage.name for stage in MAKERS}
    for entry in registry.entries(job.spec.buckets):
        by_kind = kinds.get(entry.kind) in later and entry.name.startswith(f"{job.spec.profile}-")
        if by_kind or any(entry.name.startswith(prefixes[stage]) for stage in later if stage in prefixes):
            registry.retract(job.spec.buckets, entry)
    if "train" in later:
        storage.delete(f"{job.spec.buckets.scratch}/checkpoints")
        shutil.rmtree(job.work, ignore_errors=True)
        job.work.mkdir(parents=True)
