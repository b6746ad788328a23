"""Upload and download of model-sized folders: elson against ``gcloud storage cp``, on the same emulator, in the same run.

    .venv/bin/python -m tests.benchmarks.transfers --gb 2

Both move the same files to the same server; elson's figure includes hashing every file (CRC32C and SHA-256), writing the manifest, and
reading back what it downloaded. The rounds alternate, so that a busy machine disturbs both alike.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from runners.artifacts import local_bucket, storage
from runners.spec import BucketSpec

BUCKETS = BucketSpec(models="gs://models", scratch="gs://scratch")


def make(folder: Path, total_bytes: int, files: int) -> None:
    """Files of random bytes (one block of 64 MiB repeated from different offsets: quick to make, not compressible)."""
    folder.mkdir(parents=True)
    block = os.urandom(64 << 20)
    size = total_bytes // files
    for number in range(files):
        with (folder / f"model-{number:05d}.safetensors").open("wb") as file:
            left = size
            while left:
                start = (number * 7919) % 4096
                left -= file.write(block[start : start + min(left, len(block) - 4096)])


def gcloud(*arguments: str, url: str) -> None:
    """One gcloud command against the emulator."""
    environment = {
        **os.environ,
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{url}/storage/v1/",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_CORE_PROJECT": "local",
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        # The emulator has no XML multipart; this keeps gcloud on what it does have.
        "CLOUDSDK_STORAGE_PARALLEL_COMPOSITE_UPLOAD_ENABLED": "false",
    }
    subprocess.run(["gcloud", "storage", *arguments], env=environment, check=True, capture_output=True)


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def measure(total_bytes: int, files: int, rounds: int, home: Path) -> dict[str, float]:
    """Median seconds of each."""
    source = home / "source"
    make(source, total_bytes, files)
    times: dict[str, list[float]] = {}
    with local_bucket.running(home, BUCKETS) as url:
        for number in range(rounds):
            ours, theirs = f"gs://models/ours-{number}", f"gs://models/theirs-{number}"
            for name, work in {
                "upload elson": lambda ours=ours: storage.upload(source, ours),
                "upload gcloud": lambda theirs=theirs: gcloud("cp", *map(str, source.glob("*")), f"{theirs}/", url=url),
                "download elson": lambda ours=ours: storage.download(ours, home / "down-ours"),
                "download gcloud": lambda theirs=theirs: gcloud("cp", f"{theirs}/*", str(home / "down-theirs"), url=url),
            }.items():
                if name == "download gcloud":
                    (home / "down-theirs").mkdir()
                times.setdefault(name, []).append(timed(work))
            for folder in ("down-ours", "down-theirs", f"bucket/models/ours-{number}", f"bucket/models/theirs-{number}"):
                shutil.rmtree(home / folder, ignore_errors=True)
    shutil.rmtree(source)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gb", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print("| GB | files | upload elson s | gcloud s | ratio | download elson s | gcloud s | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for share, files in ((0.1, 1), (0.1, 64), (1, 2), (1, 16), (1, 256)):
        with tempfile.TemporaryDirectory(dir=".elson") as home:
            total = int(options.gb * 1e9 * share)
            t = measure(total, files, options.rounds, Path(home).resolve())
        up, down = t["upload elson"] / t["upload gcloud"], t["download elson"] / t["download gcloud"]
        row = [f"{total / 1e9:.1f}", files, *(f"{t[k]:.1f}" for k in ("upload elson", "upload gcloud")), f"{up:.2f}"]
        row += [*(f"{t[k]:.1f}" for k in ("download elson", "download gcloud")), f"{down:.2f}"]
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
