"""What was tried to lose or to spoil something, and what was lost: kills, races, faults. Writes tests/RELIABILITY.md with what really ran.

.venv/bin/python -m tests.benchmarks.reliability --kills 200 --races 1000 --faults 100 --jobs 1
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from runners.artifacts import layout, local_bucket, registry, storage, wire
from runners.artifacts.record import code_version
from runners.spec import BucketSpec
from tests.artifacts.test_storage_faults import check_race
from tests.storage_proxy import KINDS, faults

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "tests" / "RELIABILITY.md"
BUCKETS = BucketSpec(models="gs://models", scratch="gs://scratch")


def model(folder: Path, seed: int, files: int = 12, size: int = 400_000) -> Path:
    """A folder with the same bytes for the same seed."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        (folder / f"part-{number:02d}.bin").write_bytes(random.Random(seed * 1000 + number).randbytes(size))
    return folder


def forked(work: Any) -> int:
    """Do ``work()`` in a child of this process; returns its id."""
    if child := os.fork():
        return child
    with contextlib.suppress(BaseException):
        storage.forget_clients()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        work()
        os._exit(0)
    os._exit(1)


def kills(count: int, folder: Path, seed: int) -> dict[str, Any]:
    """SIGKILL at a random moment of publishing and of downloading a model; then the same call again, to its end."""
    draw, wrong, in_work = random.Random(seed), 0, Counter[str]()
    for number in range(count):
        name, source, target = f"killed-v{number}", model(folder / "source", number), folder / "target"
        shutil.rmtree(target, ignore_errors=True)

        def publish(name: str = name, source: Path = source) -> None:
            registry.publish(BUCKETS, source, name=name, stage_id="dora-1", kind="dora")

        def download(name: str = name, target: Path = target) -> None:
            registry.download(BUCKETS, registry.usable(BUCKETS, name), target)

        for what, work in (("publish", publish), ("download", download)):
            child = forked(work)
            time.sleep(draw.uniform(0.05, 1.2))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            in_work[f"{what}, killed at work" if os.WIFSIGNALED(status) else f"{what}, had ended"] += 1
            _, status = os.waitpid(forked(work), 0)
            wrong += status != 0
        wrong += any((target / file.name).read_bytes() != file.read_bytes() for file in source.iterdir())
    return {"tried": 2 * count, "lost or different": wrong, **dict(sorted(in_work.items()))}


def races(count: int, folder: Path) -> dict[str, Any]:
    """Two writers publish one name at once, with the same bytes and with different ones in turn."""
    wrong = Counter[str]()
    for number in range(count):
        try:
            check_race(BUCKETS, folder / str(number), f"raced-v{number}", same=bool(number % 2))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
            wrong[f"{type(error).__name__}: {str(error)[:80]}"] += 1
        shutil.rmtree(folder / str(number), ignore_errors=True)
    return {"tried": count, "lost, mixed or failed": sum(wrong.values()), **wrong}


def faulty(count: int, folder: Path, seed: int) -> dict[str, Any]:
    """Publish and download while a fifth of all calls go wrong."""
    wire.SLOW_S = 0.5
    done, wrong = Counter[str](), 0
    for number in range(count):
        faults(os.environ["STORAGE_EMULATOR_HOST"], rate=0.2, seed=seed + number, kinds=KINDS, count=30)
        source, target = model(folder / "source", number, files=4, size=50_000), folder / "target"
        shutil.rmtree(target, ignore_errors=True)
        try:
            registry.download(BUCKETS, registry.publish(BUCKETS, source, name=f"faulty-v{number}", stage_id="dora-1", kind="dora"), target)
            wrong += any((target / file.name).read_bytes() != file.read_bytes() for file in source.iterdir())
            wrong += bool(storage.listing(layout.staging(BUCKETS, "dora-1", "")[:-1]))
        except Exception as error:  # noqa: BLE001
            wrong += 1
            done[f"failed: {type(error).__name__}: {str(error)[:80]}"] += 1
        done.update(faults(os.environ["STORAGE_EMULATOR_HOST"]))
    return {"tried": count, "lost, different or failed": wrong, "faults": sum(done[kind] for kind in KINDS), **dict(done)}


def jobs(count: int, folder: Path, seed: int) -> dict[str, Any]:
    """The whole job up to the quantized model, killed at random moments until it is done; its models are compared with those of a job that was left alone."""
    draw, killed, wrong = random.Random(seed), Counter[str](), 0

    def run(home: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "runners", "run", "--profile", "tiny", "--until", "quantize", "--home", str(home)]
        with (folder / "log").open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)

    def weights(home: Path) -> dict[str, str]:
        files = sorted((home / "bucket" / "models").rglob("*.safetensors"))
        return {str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    if count and run(folder / "alone").wait():
        return {"tried": 0, "note": "the job does not run here: see the log"}
    for number in range(count):
        home = folder / f"killed-{number}"
        while True:
            process, end = run(home), time.monotonic() + draw.uniform(3, 25)
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.1)
            if process.poll() is not None:
                wrong += process.returncode != 0
                break
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            text = (folder / "log").read_text(errors="replace").rpartition(": begins")[0].rpartition('"message": "')[2]
            killed[text or "start"] += 1
            time.sleep(0.5)
        wrong += weights(home) != weights(folder / "alone")
    return {"tried": sum(killed.values()), "jobs": count, "lost or different": wrong, **dict(killed)}


def main() -> None:
    """Run what was asked for and write the page."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("kills", "races", "faults", "jobs"):
        options.add_argument(f"--{name}", type=int, default=0)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--record", type=Path, default=PAGE.with_suffix(".json"))
    asked = options.parse_args()
    os.environ.setdefault("ELSON_BUCKET_SERVER", shlex.join([sys.executable, str(ROOT / "tests" / "storage_proxy.py")]))
    record: dict[str, Any] = json.loads(asked.record.read_text()) if asked.record.exists() else {}
    for name, work in (("kills", kills), ("races", races), ("faults", faulty), ("jobs", jobs)):
        if not (count := getattr(asked, name)):
            continue
        with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
            folder = Path(temporary)
            if name != "jobs":
                stack.enter_context(local_bucket.running(folder / "home", BUCKETS))
            found = work(count, folder / "work") if name == "races" else work(count, _made(folder / "work"), asked.seed)
        record[name] = {"command": shlex.join(sys.argv[1:]), "date": datetime.date.today().isoformat(), **code_version(), "seed": asked.seed, "result": found}
        asked.record.write_text(json.dumps(record, indent=1, sort_keys=True))
        print(name, json.dumps(found), flush=True)
    PAGE.write_text(page(record))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


TITLES = {
    "kills": "SIGKILL at random moments of publishing and downloading a model",
    "jobs": "SIGKILL at random moments of the whole job (data, train, merge, quantize, publish) on the tiny profile",
    "races": "two writers publish one name at once",
    "faults": "a fifth of all storage calls go wrong while a model is published and downloaded",
}


def page(record: dict[str, Any]) -> str:
    """The page of a record."""
    lines = ["# Reliability: what was tried, and what was lost", "", (__doc__ or "").split("\n\n")[0].strip(), ""]
    lines += ["| what | tried | lost, different or failed | details | of | date |", "|---|---:|---:|---|---|---|"]
    for name, title in TITLES.items():
        if row := record.get(name):
            result = dict(row["result"])
            tried, lost = result.pop("tried"), next((result.pop(key) for key in list(result) if key.startswith(("lost,", "lost or"))), "-")
            details = "; ".join(f"{key}: {value}" for key, value in result.items())
            lines.append(f"| {title} | {tried:,} | {lost} | {details} | {str(row['commit'])[:8] + ('+' if row.get('dirty') else '')} | {row['date']} |")
    return "\n".join(lines) + ABOUT


ABOUT = """

The storage is the embedded one behind [a proxy](storage_proxy.py) that holds every precondition and gives the faults. The same checks, fewer of
each, and others run in the tests: [storage](artifacts/test_storage_faults.py), [trust](artifacts/test_trust.py) (names, digests, swapped files),
[gateway](vm/test_gateway.py) (attacks), [rights](infra/test_storage_access.py) (what each account may not do), [input](project/test_outside.py)
(fuzzed files), [the job](job/test_faults.py) (full disk, dead bucket).

On another machine:

    .venv/bin/python -m tests.benchmarks.reliability --kills 100 --races 1000 --faults 60 --jobs 2
"""


if __name__ == "__main__":
    main()
