"""Kill a stage at random moments until it is done, again and again, and compare what it publishes with what it published when it was left alone.

Runs in the stage's own environment; the packages are imported once and each try is a fork, so that a try costs a second. Called by ``reliability``:

.elson/envs/train/bin/python -m tests.benchmarks.stage_kills train --spec gs://scratch/specs/X.json --work DIR --count 50 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from runners import identity, stages
from runners.artifacts import layout, registry, storage
from runners.spec import Spec

#: What each stage imports: here, before the forks.
HEAVY = {"train": ("torch", "peft", "transformers"), "merge": ("torch", "peft", "transformers"), "quantize": ("torch", "transformers", "awq")}
#: Kills of one result; then it is left to end.
MOST = 4


def forked(work: Callable[[], object]) -> int:
    """Do ``work()`` in a child of this process, in a group of its own; returns its id."""
    if child := os.fork():
        with contextlib.suppress(OSError):
            os.setpgid(child, child)
        return child
    with contextlib.suppress(BaseException):
        os.setpgid(0, 0)
        storage.forget_clients()
        work()
        sys.stderr.flush()
        os._exit(0)
    os._exit(1)


def killed(work: Callable[[], object], after_s: float) -> int | None:
    """Do ``work()`` in a fork and kill its whole group after so many seconds; its exit code when it ended before, None when it was killed."""
    child = forked(work)
    end = time.monotonic() + after_s
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)


def result(spec: Spec, stage: str) -> dict[str, str]:
    """SHA-256 of every file that the stage published, but its record (which holds times) and the manifest (which holds the record's hash)."""
    entry = registry.complete(spec.buckets, identity.model_name(spec, stage), identity.stage_id(spec, stage))
    if entry is None:
        return {}
    files = [item for item in storage.listing(layout.model(spec.buckets, entry.name)) if item.path not in ("record.json", "manifest.json")]
    return {item.path: hashlib.sha256(read(f"{layout.model(spec.buckets, entry.name)}/{item.path}")).hexdigest() for item in files}


def read(uri: str) -> bytes:
    """An object's bytes."""
    found = storage.read(uri)
    return found[0] if found else b""


def forget(spec: Spec, stage: str, work: Path) -> None:
    """Make the stage's result not made, here and in the bucket."""
    if entry := registry.complete(spec.buckets, identity.model_name(spec, stage), identity.stage_id(spec, stage)):
        registry.retract(spec.buckets, entry)
    storage.delete(layout.checkpoints(spec.buckets, identity.stage_id(spec, stage)))
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)


def main() -> None:
    """Print one JSON object: kills, results, and how many results differ."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("stage", choices=HEAVY)
    options.add_argument("--spec", required=True)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--count", type=int, required=True)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--until-s", type=float, default=600)
    asked = options.parse_args()
    for name in HEAVY[asked.stage]:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    spec, draw = stages.load_spec(asked.spec), random.Random(asked.seed)

    def work() -> None:
        getattr(stages, asked.stage)(spec, asked.work)

    forget(spec, asked.stage, asked.work)
    begin = time.monotonic()
    if killed(work, 600) != 0:
        sys.exit(f"{asked.stage} does not run here")
    alone_s, expected = time.monotonic() - begin, result(spec, asked.stage)
    kills, results, differ, failed = 0, 0, 0, 0
    # The three stages share the limit.
    while kills < asked.count and time.monotonic() - begin < asked.until_s / 3:
        forget(spec, asked.stage, asked.work)
        code: int | None = None
        for _ in range(MOST):
            if (code := killed(work, draw.uniform(0, alone_s))) is not None:
                break
            kills += 1
        code = killed(work, 600) if code is None else code
        results, failed, differ = results + 1, failed + (code != 0), differ + (not expected or result(spec, asked.stage) != expected)
        print(f"{asked.stage}: {kills} kills, {results} results, {differ} differ, {failed} failed", file=sys.stderr, flush=True)
    print(json.dumps({"kills": kills, "results": results, "differ": differ, "failed": failed}))


if __name__ == "__main__":
    main()
