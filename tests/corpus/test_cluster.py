"""The build as datatrove's tasks: the same dataset as on one machine, resumed task by task."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.corpus import cluster, near
from runners.corpus.build import CONTENT, build
from runners.corpus.words import Sets
from runners.errors import UserError
from runners.spec import BucketSpec
from tests.corpus.test_build import project, rows, spec

CASE = rows(1)[0]["question"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """5,000 pairs in two sources (four batches), with repeats, near-duplicates, a leak and rejects."""
    many = rows(4_500)
    near_twins = [{**row, "question": f"{row['question']} Please.", "answer": row["answer"]} for row in many[100:150]]
    return project(tmp_path / "in", many, [*near_twins, *many[:40], {"no": 1}, *rows(400, source="else")], cases=(CASE,))


def job(root: Path, work: str, tasks: int = 3) -> cluster.ClusterJob:
    return cluster.job_of(spec(drop_leaks=True), root, None, work, tasks)


def test_tasks_make_the_dataset_of_one_machine(tmp_path: Path, root: Path) -> None:
    alone = build(spec(drop_leaks=True), root, tmp_path / "alone")
    together = cluster.run(job(root, str(tmp_path / "work")), tmp_path / "together", workers=2)
    assert alone.statistics["dropped"]["leak"] and alone.statistics["dropped"]["near_duplicate"] and alone.statistics["rejected"]["rows"]
    assert together.dataset_id == alone.dataset_id
    assert all((together.folder / name).read_bytes() == (alone.folder / name).read_bytes() for name in CONTENT)


def test_the_tasks_meet_in_a_bucket_and_go_on_from_there(tmp_path: Path, root: Path, buckets: BucketSpec) -> None:
    fsspec.get_filesystem_class("gs").clear_instance_cache()  # it keeps the address of another test's bucket
    alone = build(spec(drop_leaks=True), root, tmp_path / "alone")
    mine = job(root, f"{buckets.scratch}/work", tasks=2)
    together = cluster.run(mine, tmp_path / "together", workers=2)
    assert together.dataset_id == alone.dataset_id
    bucket, place = fsspec.core.url_to_fs(mine.place)
    bucket.invalidate_cache()
    assert len(bucket.glob(f"{place}/batches/*.npz")) == 4
    bucket.rm([f"{place}/near/pairs-00001.npy", f"{place}/logs/near/completions/00001"])
    with pytest.raises(UserError, match="1 of 4 results are missing in gs://scratch/work"):
        cluster.finish(mine, tmp_path / "again")
    assert cluster.run(mine, tmp_path / "again", workers=1).dataset_id == alone.dataset_id


def test_what_is_done_is_not_done_again_and_what_is_missing_is_said(tmp_path: Path, root: Path) -> None:
    mine = job(root, str(tmp_path / "work"))
    with pytest.raises(UserError, match="6 of 6 results are missing"):
        cluster.finish(mine, tmp_path / "out")
    first = cluster.run(mine, tmp_path / "out", workers=1)
    batches = sorted(Path(mine.place, "batches").glob("*.npz"))
    times = [path.stat().st_mtime_ns for path in batches]
    # One task of each stage is lost, with a batch and with its mark of completion.
    batches[1].unlink()
    Path(mine.place, "near", "pairs-00001.npy").unlink()
    for stage, rank in (("read", 1), ("near", 1)):
        Path(mine.place, "logs", stage, "completions", f"{rank:05d}").unlink()
    with pytest.raises(UserError, match="1 of 6 results are missing"):
        cluster.finish(mine, tmp_path / "again")
    assert cluster.run(mine, tmp_path / "again", workers=1).dataset_id == first.dataset_id
    assert [path.stat().st_mtime_ns == time for path, time in zip(batches, times, strict=True)] == [True, False, True, True]


def test_changed_sources_are_another_job(tmp_path: Path, root: Path) -> None:
    before = job(root, "w").place
    assert job(root, "w").place == before != job(root, "w", tasks=4).place
    with (root / "s0.jsonl").open("a") as file:
        file.write(json.dumps(rows(5_001)[-1]) + "\n")
    assert job(root, "w").place != before
    with pytest.raises(UserError, match="0 tasks"):
        job(root, "w", tasks=0)


def test_slurm_gets_two_arrays_of_which_the_second_waits(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for sbatch writes down what it is given and answers as Slurm does."""
    program = tmp_path / "bin" / "sbatch"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nn=$(ls {tmp_path}/bin | wc -l)\nfor last; do :; done\n(echo "# $*"; cat "$last") > {tmp_path}/bin/job$n\necho "Submitted batch job $n"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    cluster.submit(job(root, str(tmp_path / "work")), "cpu")
    jobs = {number: path.read_text() for number in range(1, 9) if (path := tmp_path / "bin" / f"job{number}").exists()}
    (first,), (second,) = (
        [number for number, text in jobs.items() if f"--job-name=elson-{name}\n" in text and "--array=0-2" in text] for name in ("read", "near")
    )
    assert all("--partition=cpu" in jobs[number] for number in (first, second))
    assert f"--dependency=afterok:{first}" in jobs[second]


def as_sets(sets: list[set[int]]) -> Sets:
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in sets])]).astype(np.int64)
    return Sets(offsets, np.array([item for one in sets for item in sorted(one)], np.uint32))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sets(st.integers(0, 12), max_size=9), max_size=14), st.sampled_from([0.5, 0.7, 0.8]), st.integers(1, 5))
def test_the_parts_of_a_join_are_the_join(sets: list[set[int]], threshold: float, parts: int) -> None:
    given_sets = as_sets(sets)
    together: Any = near.clusters(given_sets, threshold)
    if sets:
        assert near.merged(*(near.clusters(given_sets, threshold, part, parts) for part in range(parts))).tolist() == together.tolist()


def test_a_batch_survives_its_file(root: Path) -> None:
    from runners.corpus import prepare, reading

    mine = job(root, "w")
    prepare_settings = reading.prepare_settings(mine.spec, mine.wanted, root, mine.benchmark())
    part = prepare.prepare(list(reading.batches(mine.wanted, root, None))[-1], prepare_settings)
    again = cluster.unpacked(cluster.packed(part))
    assert (again.lines, again.sources, again.categories, again.hits, again.rejects) == (part.lines, part.sources, part.categories, part.hits, part.rejects)
    assert all((again.columns[name] == column).all() and again.columns[name].dtype == column.dtype for name, column in part.columns.items())
    assert (again.pair_sets.items == part.pair_sets.items).all()
