"""What was tried to lose or to spoil something, and what was lost: kills, races, faults, full disks, clocks, hostile input. Writes tests/RELIABILITY.md.

.venv/bin/python -m tests.benchmarks.reliability --kills 240 --races 1000 --faults 60 --disks 30 --clocks 30 --fuzz 400 --attacks 1
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import errno
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from runners.artifacts import fetch, layout, local_bucket, record, registry, storage, wire
from runners.artifacts.record import code_version
from runners.errors import Temporary, UserError
from tests.artifacts.test_storage_faults import check_race
from tests.benchmarks import kills
from tests.benchmarks.kills import BUCKETS, ROOT, model
from tests.storage_proxy import KINDS, faults

PAGE = ROOT / "tests" / "RELIABILITY.md"
#: Of all kills, the share of each part; the server's are few, since each of its tries starts vLLM.
SHARES = {"upload": 0.45, "train": 0.16, "merge": 0.12, "quantize": 0.12, "evaluate": 0.13, "serve": 0.02}
#: At most so long for the races, in seconds; the page says how many there were.
RACES_S = float(os.environ.get("ELSON_RACES_S", "3600"))
ATTACKS = {
    "gateway": ["tests/vm/test_gateway.py"],
    "names, digests, swapped and hostile files": ["tests/artifacts/test_trust.py"],
    "what each account may not do": ["tests/infra/test_storage_access.py"],
}


def races(count: int, folder: Path, _: int) -> dict[str, Any]:
    """Two writers publish one name at once, with the same bytes and with different ones in turn; four such pairs at a time."""
    wrong = Counter[str]()

    def one(number: int) -> None:
        try:
            check_race(BUCKETS, folder / str(number), f"raced-v{number}", same=bool(number % 2))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
            wrong[f"{type(error).__name__}: {str(error)[:80]}"] += 1
        shutil.rmtree(folder / str(number), ignore_errors=True)

    with local_bucket.running(folder / "home", BUCKETS), ThreadPoolExecutor(4) as pool:
        begin, tried = time.monotonic(), 0
        while tried < count and time.monotonic() - begin < RACES_S:
            # A fresh bucket's worth at a time: how long a name's listing is, is not what is tried here.
            list(pool.map(one, range(tried, min(count, tried + 40))))
            tried = min(count, tried + 40)
            for item in registry.entries(BUCKETS):
                registry.retract(BUCKETS, item)
    return {"tried": tried, "lost": sum(wrong.values()), **wrong}


def faulty(count: int, folder: Path, seed: int) -> dict[str, Any]:
    """Publish and download while a fifth of all calls go wrong."""
    wire.SLOW_S = 0.5
    done, wrong = Counter[str](), 0
    with local_bucket.running(folder / "home", BUCKETS):
        for number in range(count):
            faults(os.environ["STORAGE_EMULATOR_HOST"], rate=0.2, seed=seed + number, kinds=KINDS, count=30)
            source, target = model(folder / "source", number, files=4, size=50_000), folder / "target"
            shutil.rmtree(target, ignore_errors=True)
            try:
                fetch.download(BUCKETS, registry.publish(BUCKETS, source, name=f"faulty-v{number}", stage_id="dora-1", kind="dora"), target)
                wrong += any((target / file.name).read_bytes() != file.read_bytes() for file in source.iterdir())
                wrong += bool(storage.listing(layout.staging(BUCKETS, "dora-1", "")[:-1]))
            except Exception as error:  # noqa: BLE001 - counted as lost, whatever it is
                wrong += 1
                done[f"failed: {type(error).__name__}: {str(error)[:80]}"] += 1
            done.update(faults(os.environ["STORAGE_EMULATOR_HOST"]))
    return {
        "tried": count,
        "lost": wrong,
        "faults given": sum(done[kind] for kind in KINDS),
        **{f"fault {kind}" if kind in KINDS else kind: number for kind, number in sorted(done.items())},
    }


def disks(count: int, folder: Path, seed: int) -> dict[str, Any]:
    """Something else fills the disk at a random moment of a download: one error with exit code 75 and no folder that looks whole; with room again it ends."""
    draw, wrong, said, tried = random.Random(seed), Counter[str](), Counter[str](), 0
    source, small = model(folder / "source", seed), folder / "small"
    small.mkdir()
    with local_bucket.running(folder / "home", BUCKETS):
        entry = registry.publish(BUCKETS, source, name="disk-v1", stage_id="dora-1", kind="dora")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3g", "tmpfs", str(small)], check=True)
        try:
            once = time.monotonic()
            fetch.download(BUCKETS, entry, small / "model")
            alone_s = time.monotonic() - once
            while tried < count:
                shutil.rmtree(small / "model", ignore_errors=True)
                subprocess.run(["mount", "-o", "remount,size=3g", str(small)], check=True)
                full = threading.Timer(draw.uniform(0, 0.6) * alone_s, _shrink, [small])
                full.start()
                try:
                    fetch.download(BUCKETS, entry, small / "model")
                    full.cancel()
                    continue
                except Temporary:
                    said["exit code 75"] += 1
                except UserError as error:
                    wrong[f"not temporary: {str(error)[:80]}"] += 1
                except OSError as error:
                    # The command line ends with 75 for this one.
                    (said if error.errno == errno.ENOSPC else wrong)[f"{errno.errorcode.get(error.errno or 0)}, exit code 75 of the command"] += 1
                except Exception as error:  # noqa: BLE001 - counted as lost, whatever it is
                    wrong[f"traceback: {type(error).__name__}: {str(error)[:80]}"] += 1
                finally:
                    full.join()
                tried += 1
                wrong["a folder that looks whole"] += (small / "model").exists()
                subprocess.run(["mount", "-o", "remount,size=3g", str(small)], check=True)
                fetch.download(BUCKETS, entry, small / "model")
                wrong["different bytes"] += any((small / "model" / file.name).read_bytes() != file.read_bytes() for file in source.iterdir())
        finally:
            subprocess.run(["umount", "-l", str(small)], check=True)
    return {"tried": tried, "lost": sum(wrong.values()), **said, **+wrong}


def _shrink(small: Path) -> None:
    """Leave a tmpfs no room beyond what is used."""
    used = shutil.disk_usage(small).used
    subprocess.run(["mount", "-o", f"remount,size={max(64, used // 1024)}k", str(small)], check=False)


def clocks(count: int, folder: Path, seed: int) -> dict[str, Any]:
    """The wall clock jumps by up to three years, back or forth, at every look, while a model is published and downloaded."""
    draw, wrong, real, real_now = random.Random(seed), Counter[str](), time.time, record.now
    jumps = 0

    def jumping() -> float:
        nonlocal jumps
        jumps += 1
        return real() + draw.uniform(-1e8, 1e8)

    with local_bucket.running(folder / "home", BUCKETS):
        for number in range(count):
            source, target = model(folder / "source", number, files=3, size=50_000), folder / "target"
            shutil.rmtree(target, ignore_errors=True)
            time.time, record.now = jumping, lambda: datetime.datetime.fromtimestamp(jumping(), datetime.UTC).isoformat()
            try:
                fetch.download(BUCKETS, registry.publish(BUCKETS, source, name=f"clock-v{number}", stage_id="dora-1", kind="dora"), target)
                registry.publish(BUCKETS, source, name=f"clock-v{number}", stage_id="dora-1", kind="dora")
                wrong["different bytes"] += any((target / file.name).read_bytes() != file.read_bytes() for file in source.iterdir())
            except Exception as error:  # noqa: BLE001 - counted as lost, whatever it is
                wrong[f"{type(error).__name__}: {str(error)[:80]}"] += 1
            finally:
                time.time, record.now = real, real_now
    return {"tried": count, "lost": sum(wrong.values()), "jumps": jumps, **+wrong}


def fuzzed(count: int, folder: Path, seed: int) -> dict[str, Any]:
    """So many broken inputs for each parser of the tests; whatever is not one sentence is counted."""
    from tests.project.test_outside import PARSERS, mutations

    tried, wrong = 0, Counter[str]()
    for name, (parse, good) in PARSERS.items():
        for content in mutations(good, random.Random(f"{seed} {name}"), count):
            shutil.rmtree(folder / "one", ignore_errors=True)
            (folder / "one").mkdir()
            tried += 1
            try:
                parse(folder / "one", content)
            except UserError:
                pass
            except Exception as error:  # noqa: BLE001 - counted as lost, whatever it is
                wrong[f"{name}: {type(error).__name__}"] += 1
    return {"tried": tried, "lost": sum(wrong.values()), "parsers": len(PARSERS), **wrong}


def attacks(_: int, folder: Path, __: int) -> dict[str, Any]:
    """The tests that attack; each is one attempt or a family of them."""
    found, failed = Counter[str](), 0
    for name, files in ATTACKS.items():
        report = folder / "report.xml"
        subprocess.run([sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *files], cwd=ROOT, capture_output=True)
        suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
        failed += int(suite.attrib["failures"]) + int(suite.attrib["errors"])
        found[name] += int(suite.attrib["tests"]) - int(suite.attrib["skipped"])
    return {"tried": sum(found.values()), "lost": failed, **found}


OTHERS: dict[str, Callable[[int, Path, int], dict[str, Any]]] = {
    "races": races, "faults": faulty, "disks": disks, "clocks": clocks, "fuzz": fuzzed, "attacks": attacks,
}  # fmt: skip
TITLES = {
    "upload": "SIGKILL while a model is published or downloaded",
    "train": "SIGKILL of the train stage (tiny model)",
    "merge": "SIGKILL of the merge stage (tiny model)",
    "quantize": "SIGKILL of the quantize stage (tiny model)",
    "evaluate": "SIGKILL of an evaluation of the whole benchmark",
    "serve": "SIGKILL of the server (its download, vLLM on a CPU, its start)",
    "races": "two writers publish one name at once",
    "faults": "a model is published and downloaded while a fifth of all storage calls go wrong",
    "disks": "the disk is full in the middle of a download",
    "clocks": "a model is published and downloaded while the clock jumps by up to three years",
    "fuzz": "broken input for a parser",
    "attacks": "tests that attack",
}


def main() -> None:
    """Run what was asked for and write the page."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("kills", *OTHERS):
        options.add_argument(f"--{name}", type=int, default=0)
    options.add_argument("--parts", nargs="+", choices=SHARES, default=list(SHARES), help="where the kills go")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--limit-s", type=float, default=600, help="at most so long for a part of the kills; train, merge and quantize share it")
    options.add_argument("--record", type=Path, default=PAGE.with_suffix(".json"))
    asked = options.parse_args()
    os.environ.setdefault("ELSON_BUCKET_SERVER", shlex.join([sys.executable, str(ROOT / "tests" / "storage_proxy.py")]))
    version = code_version()  # before the page is written, which is an edit too
    kept: dict[str, Any] = json.loads(asked.record.read_text()) if asked.record.exists() else {}

    def keep(name: str, found: dict[str, Any]) -> None:
        kept[name] = {"command": shlex.join(sys.argv[1:]), "date": datetime.date.today().isoformat(), **version, "seed": asked.seed, "result": found}
        asked.record.write_text(json.dumps(kept, indent=1, sort_keys=True))
        PAGE.write_text(page(kept))
        print(name, json.dumps(found), flush=True)

    for name, work in OTHERS.items():
        if count := getattr(asked, name):
            with _folder() as folder:
                keep(name, work(count, folder, asked.seed))
    if asked.kills:
        counts = {part: max(1, round(asked.kills * SHARES[part] / sum(SHARES[one] for one in asked.parts))) for part in asked.parts}
        with _folder() as folder:
            if "upload" in counts:
                keep("upload", kills.transfers(counts["upload"], folder, asked.seed))
            if "evaluate" in counts:
                keep("evaluate", kills.evaluation(counts["evaluate"], folder, asked.seed, asked.limit_s))
            if {"train", "merge", "quantize", "serve"} & counts.keys():
                home, uri = kills.prepared(folder)
                # The later stages first: each needs the results of those before it.
                if "serve" in counts:
                    keep("serve", kills.server(home, uri, counts["serve"], asked.seed, asked.limit_s))
                for stage in [stage for stage in ("quantize", "merge", "train") if stage in counts]:
                    keep(stage, kills.stage(stage, home, uri, counts[stage], asked.seed, asked.limit_s))
    PAGE.write_text(page(kept))


@contextlib.contextmanager
def _folder() -> Any:
    with tempfile.TemporaryDirectory(prefix="elson-reliability-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def page(kept: dict[str, Any]) -> str:
    """The page of a record: what ran, how often, what was lost, and the command of each row."""
    rows = {name: kept[name] for name in TITLES if name in kept}
    lines = [
        "# Reliability: what was tried, and what was lost",
        "",
        "Written by the command below, in one call or several; every figure and its call are in the record, [RELIABILITY.json](RELIABILITY.json).",
        "",
    ]
    lines += ["| what | tried | lost, different or failed | details | of | date |", "|---|---:|---:|---|---|---|"]
    for name, row in rows.items():
        result = dict(row["result"])
        tried, lost = result.pop("tried"), result.pop("lost")
        details = "; ".join(f"{key}: {value:,}" for key, value in sorted(result.items()))
        lines.append(f"| {TITLES[name]} | {tried:,} | {lost:,} | {details} | {str(row['commit'])[:8] + ('+' if row.get('dirty') else '')} | {row['date']} |")
    parts = [rows[name]["result"] for name in SHARES if name in rows]
    lines += ["", f"Kills in all: {sum(part['tried'] for part in parts):,}; results compared: {sum(part['results compared'] for part in parts):,}."]
    return "\n".join(lines) + ABOUT


ABOUT = """ A kill is counted when it ended a process that was at work.
What is compared after kills: the SHA-256 of every published file but the record, which holds times (train, merge, quantize); every byte (publishing,
downloading); every answer, the verdict and the scores (evaluate); an answer at temperature 0 (serve). `+` after a commit: with edits that were not committed.

The storage is the embedded one behind [a proxy](storage_proxy.py) that holds every precondition and gives the faults. More of each is in the tests:
[storage](artifacts/test_storage_faults.py), [trust](artifacts/test_trust.py), [gateway](vm/test_gateway.py), [rights](infra/test_storage_access.py),
[input](project/test_outside.py), [the job](job/test_faults.py).

    .venv/bin/python -m tests.benchmarks.reliability --kills 240 --races 1000 --faults 60 --disks 30 --clocks 30 --fuzz 400 --attacks 1
"""


if __name__ == "__main__":
    main()
