"""A bucket with a tiny base model and a small dataset, published by the project's own code; every world that asks starts with a copy."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runners import environments, spec, stages
from runners.artifacts import local_bucket, registry
from runners.local import run
from runners.spec import DatasetSpec, EnvironmentDigests, MachineSpec, Spec
from tests.vm.simulation import golden

_HOME = golden.STATE / "seed"
_DOMAINS = ("retirement", "tax", "banking", "investing")


@contextmanager
def _alone() -> Iterator[None]:
    """One of the tests' workers at a time: the seed is one home for all of them."""
    golden.STATE.mkdir(parents=True, exist_ok=True)
    with (golden.STATE / "seed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@_alone()
def files() -> Path:
    """The folder of the seeded buckets."""
    made_by = [
        golden.ROOT / "runners" / name for name in ("local/base_model.py", "artifacts/registry.py", "artifacts/layout.py", "artifacts/record.py", "stages.py")
    ] + [Path(__file__)]
    stamp, mark = hashlib.sha256(b"".join(file.read_bytes() for file in made_by)).hexdigest(), _HOME / "stamp"
    if not (mark.exists() and mark.read_text() == stamp):
        shutil.rmtree(_HOME, ignore_errors=True)
        _HOME.mkdir(parents=True)
        base = _HOME / "base"
        command = [str(environments.python("train")), "-m", "runners", "base", "make", "tiny", "--out", str(base)]
        subprocess.run(command, cwd=golden.ROOT, check=True, capture_output=True)
        wanted = run.load_profile("tiny")
        with local_bucket.running(_HOME, wanted.buckets):
            stages.publish_base(wanted.buckets, base, wanted.base_model.name)
            stages.publish_dataset(wanted.buckets, _dataset(_HOME / "dataset"), "tiny-corpus")
        mark.write_text(stamp)
    return _HOME / "bucket"


def resolved(machine: MachineSpec, **changes: object) -> Spec:
    """The tiny profile for a VM, every id filled in."""
    digests = EnvironmentDigests(train="image:simulated", quantize="image:simulated", serve="image:simulated", gateway="image:simulated")
    wanted = run.load_profile("tiny").model_copy(update={"machine": machine, "environments": digests, "dataset": DatasetSpec(name="tiny-corpus")})
    with _alone(), local_bucket.running(_HOME, wanted.buckets):
        found = registry.resolve(wanted)
    return spec.parse({**found.model_dump(mode="json"), **changes})


def _dataset(folder: Path) -> Path:
    folder.mkdir()
    for name, count in (("train", 64), ("validation", 8)):
        rows = [_row(name, number) for number in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def _row(split: str, number: int) -> dict[str, object]:
    income = 1000 + 37 * number + (5 if split == "validation" else 0)
    question = f"What is left of {income} dollars of income after {number + 10} percent of tax?"
    answer = f"The tax is {income * (number + 10) / 100:.2f} dollars, so {income * (90 - number) / 100:.2f} dollars are left."
    return {"id": f"{split}-{number}", "question": question, "answer": answer, "category": _DOMAINS[number % 4], "source": "simulation", "history": []}
