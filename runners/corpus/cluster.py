"""The build of ``build.py`` as tasks of datatrove, for corpora past one machine: the same pairs, the same bytes, the same id.

Three stages, whose tasks meet in a folder that all of them reach (a shared disk; fsspec opens it):

1. **read**: task t parses, checks and hashes every t-th batch of rows; a batch is one file.
2. **near**: task t finds near-duplicates among the candidates of every t-th key, for questions and for pairs. Each holds the sets of all pairs on its own disk,
   and the candidates of its own keys in memory.
3. **finish**, on one machine: unite what the tasks found, then drop, split and write as a build does.

A task that is done is not done again, by datatrove's own record of completions in ``logs``, and a batch that is there is not read again. The executor is local
(``workers`` processes) or Slurm's (``slurm``: a partition): datatrove submits stages 1 and 2 as job arrays that wait for each other.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runners.corpus import build, leaks, near, reading, sources
from runners.corpus.leaks import BenchmarkQuestions, Hit
from runners.corpus.prepare import Prepared, prepare
from runners.corpus.reading import Corpus, Gathered
from runners.corpus.sources import Sources
from runners.corpus.words import Sets
from runners.errors import UserError
from runners.outside import digest
from runners.spec import Spec

_NOTIONS = ("questions", "pairs")
_SETS = ("question_sets", "pair_sets")


@dataclass(frozen=True)
class ClusterJob:
    """A build as tasks: ``place`` is the folder where they meet, ``tasks`` how many a stage has."""

    spec: Spec
    root: Path
    wanted: Sources
    place: str
    tasks: int

    def benchmark(self) -> BenchmarkQuestions | None:
        """The benchmark the pairs are compared with."""
        data = self.spec.data
        return leaks.load(self.root / data.benchmark, data.leak_jaccard) if data.benchmark else None


@dataclass(frozen=True, repr=False)
class ReadTask:
    """Stage 1; a step of a datatrove pipeline."""

    job: ClusterJob

    def __call__(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Prepare every ``world_size``-th batch and save it."""
        job, folder = self.job, _folder(self.job.place)
        settings = reading.prepare_settings(job.spec, job.wanted, job.root, job.benchmark())
        count = 0
        for count, batch in enumerate(reading.batches(job.wanted, job.root, settings.categorizer), 1):
            name = f"batches/{count - 1:08d}.npz"
            if (count - 1) % world_size == rank and not folder.exists(name):
                _save(folder, name, packed(prepare(batch, settings)))
        if rank == 0:
            _save(folder, "count.json", json.dumps(count).encode())
        yield from data or ()


@dataclass(frozen=True, repr=False)
class NearTask:
    """Stage 2; a step of a datatrove pipeline."""

    job: ClusterJob

    def __call__(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Label the clusters that the candidates of every ``world_size``-th key make."""
        job, folder = self.job, _folder(self.job.place)
        with tempfile.TemporaryDirectory() as disk:
            corpus = _gathered(job, Path(disk))
            for notion, sets in zip(_NOTIONS, (corpus.question_sets, corpus.pair_sets), strict=True):
                labels = near.clusters(sets, job.spec.data.near_duplicate_jaccard, rank, world_size)
                file = io.BytesIO()
                np.save(file, labels)
                _save(folder, f"near/{notion}-{rank:05d}.npy", file.getvalue())
        yield from data or ()


def run(job: ClusterJob, out: Path, workers: int) -> build.BuildResult:
    """All three stages on this machine, ``workers`` processes at a time. Raises what :func:`runners.corpus.build.build` raises."""
    from datatrove.executor import LocalPipelineExecutor

    for name, step in (("read", ReadTask(job)), ("near", NearTask(job))):
        # A process of its own for every task: a fresh one holds no threads of a storage client.
        executor = LocalPipelineExecutor(pipeline=[step], tasks=job.tasks, workers=workers, logging_dir=f"{job.place}/logs/{name}", start_method="spawn")
        executor.run()
    return finish(job, out)


def submit(job: ClusterJob, partition: str, time: str = "08:00:00", memory_gb: int = 8) -> None:
    """Stages 1 and 2 as Slurm job arrays, the second after the first; :func:`finish` follows when they are done."""
    from datatrove.executor import SlurmPipelineExecutor

    before = None
    for name, step in (("read", ReadTask(job)), ("near", NearTask(job))):
        before = SlurmPipelineExecutor(
            pipeline=[step],
            tasks=job.tasks,
            time=time,
            partition=partition,
            mem_per_cpu_gb=memory_gb,
            job_name=f"elson-{name}",
            logging_dir=f"{job.place}/logs/{name}",
            slurm_logs_folder=str(Path.cwd() / ".elson" / "slurm" / name),
            venv_path=f"{sys.prefix}/bin/activate",
            depends=before,
            mail_type="NONE",
        )
    if before:
        before.run()


def finish(job: ClusterJob, out: Path) -> build.BuildResult:
    """Stage 3: the dataset from what the tasks left. Raises UserError when some are missing."""
    folder = _folder(job.place)
    missing = [name for name in (f"near/{notion}-{rank:05d}.npy" for notion in _NOTIONS for rank in range(job.tasks)) if not folder.exists(name)]
    if missing:
        raise UserError(
            f"{len(missing)} of {2 * job.tasks} results are missing in {job.place}, e.g. {missing[0]}", "every task done", "run the same command again"
        )

    def gathered(_: Sources, __: BenchmarkQuestions | None, work: Path) -> tuple[Corpus, tuple[Any, Any]]:
        labels = [near.merged(*(_array(folder, f"near/{notion}-{rank:05d}.npy") for rank in range(job.tasks))) for notion in _NOTIONS]
        return _gathered(job, work), (labels[0], labels[1])

    return build.build(job.spec, job.root, out, wanted=job.wanted, reader=gathered)


def packed(part: Prepared) -> bytes:
    """A prepared batch as one file that holds numbers and JSON, and nothing that runs when it is read."""
    texts = {"sources": part.sources, "categories": part.categories, "hits": part.hits, "rejects": part.rejects}
    arrays = {"lines": np.frombuffer(part.lines, np.uint8), "lengths": part.lengths, "texts": np.frombuffer(json.dumps(texts).encode(), np.uint8)}
    columns = {f"column.{name}": column for name, column in part.columns.items()}
    sets = {f"{name}.{field}": getattr(getattr(part, name), field) for name in _SETS for field in ("offsets", "items")}
    file = io.BytesIO()
    np.savez(file, **arrays, **columns, **sets)
    return file.getvalue()


def unpacked(data: bytes) -> Prepared:
    """What :func:`packed` made."""
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        texts = json.loads(found["texts"].tobytes())
        columns = {name.removeprefix("column."): found[name] for name in found.files if name.startswith("column.")}
        question_sets, pair_sets = (Sets(found[f"{name}.offsets"], found[f"{name}.items"]) for name in _SETS)
        hits = [Hit(*hit) for hit in texts["hits"]]
        return Prepared(
            found["lines"].tobytes(), found["lengths"], columns, texts["sources"], texts["categories"], question_sets, pair_sets, hits, texts["rejects"]
        )


def _gathered(job: ClusterJob, work: Path) -> Corpus:
    """Every batch, in order, as columns and files in ``work``. Raises UserError when one is missing."""
    folder = _folder(job.place)
    if not folder.exists("count.json"):
        raise UserError(f"{job.place} holds no batches", "every task of the stage `read` done", "run the same command again")
    with folder.open("count.json", "rb") as file:
        count = json.load(file)
    gathered = Gathered(work)
    with gathered:
        for number in range(count):
            name = f"batches/{number:08d}.npz"
            try:
                with folder.open(name, "rb") as file:
                    gathered.add(unpacked(file.read()))
            except FileNotFoundError:
                raise UserError(f"{name} is missing in {job.place}", "every task of the stage `read` done", "run the same command again") from None
    return gathered.corpus()


def _folder(place: str) -> Any:
    from datatrove.io import get_datafolder

    return get_datafolder(place)


def _array(folder: Any, name: str) -> Any:
    with folder.open(name, "rb") as file:
        return np.load(io.BytesIO(file.read()), allow_pickle=False)


def _save(folder: Any, name: str, data: bytes) -> None:
    """Write a file so that it is there whole or not at all: renamed on a disk; an object appears when it is complete."""
    if folder.fs.protocol in ("file", ("file", "local")):
        target = Path(folder.resolve_paths(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        partial.write_bytes(data)
        partial.replace(target)
        return
    with folder.open(name, "wb") as file:
        file.write(data)


def job_of(spec: Spec, root: Path, given: Sources | None, work: str, tasks: int) -> ClusterJob:
    """The job of a spec, in a folder of its own below ``work``: other sources, settings or tasks do not find its files. Raises UserError."""
    if tasks < 1:
        raise UserError(f"{tasks} tasks", "at least one", "pass another --tasks")
    wanted = given or sources.load(root / spec.data.sources)
    read = [root / spec.data.taxonomy, root / spec.data.dated_limits]
    read += sorted(path for path in (root / spec.data.benchmark).rglob("*") if path.is_file()) if spec.data.benchmark else []
    read += [path for source in wanted.sources for path in sources.files(source, root)]
    seen = [[sources.shown(path, root), path.stat().st_size, path.stat().st_mtime_ns] for path in read if path.exists()]
    identity = {"data": spec.data.model_dump(mode="json"), "sources": wanted.model_dump(mode="json"), "tasks": tasks, "files": seen}
    return ClusterJob(spec, root, wanted, f"{work.rstrip('/')}/{digest(identity)}", tasks)
