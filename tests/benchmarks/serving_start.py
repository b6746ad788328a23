"""What a second start skips: four starts of the real server (vLLM on this machine's CPU) from an emulated bucket, each as a new machine would make it.

1. an empty disk, nothing compiled: vLLM compiles, and leaves the code with its job; it is published as `elson models compiled` does
2. an empty disk again: the compiled code comes with the model, and vLLM starts while the weights arrive
3. an empty disk again, but the model is downloaded first, and vLLM starts then
4. the same disk: weights and code are here already

The bucket is behind a line that lets ``--download-s`` seconds pass for the whole model: what is planned for the 14B on an L4 of Cloud Run.

    .venv/bin/python -m tests.benchmarks.serving_start --model FOLDER --out tests/benchmarks/serving_start.json
    python -m tests.benchmarks.serving_start --table         # the table of README.md, from the record
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from runners import environments, stages
from runners.artifacts import fetch, local_bucket, registry, storage, wire
from runners.artifacts.record import manifest_of
from runners.serving import compiled
from runners.serving.phases import NAMES
from runners.spec import BucketSpec, ServeSpec, Spec

JOB = "serve-0123456789abcdef"
RECORD = Path(__file__).with_suffix(".json")
BUCKETS = BucketSpec(models="gs://models", scratch="gs://scratch")


class Line:
    """A TCP line to the emulated bucket that brings so many bytes a second, over all of its connections together."""

    def __init__(self, upstream: tuple[str, int], bytes_per_s: float) -> None:
        self.upstream, self.bytes_per_s, self.free_at, self.guard = upstream, bytes_per_s, 0.0, threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self.listener.accept()
            far = socket.create_connection(self.upstream)
            threading.Thread(target=self._pass, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, slow: bool) -> None:
        try:
            while block := source.recv(1 << 18):
                if slow:
                    with self.guard:
                        now = time.monotonic()
                        self.free_at = max(now, self.free_at) + len(block) / self.bytes_per_s
                        wait_s = self.free_at - now
                    time.sleep(wait_s)
                target.sendall(block)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()
            target.close()


def start(spec: Spec, work: Path, port: int) -> dict[str, Any]:
    """One start to its first completion: seconds of each phase, seconds together, and the processor's seconds."""
    serve = ["-m", "runners", "serve", "--spec", stages.save_spec(spec), "--work", str(work), "--port", str(port), "--ready-port", str(port + 1)]
    environment = {**os.environ, "VLLM_API_KEY": secrets.token_hex(24), "ELSON_JOB": JOB, "PYTHONPATH": str(environments.ROOT), "OMP_NUM_THREADS": "2"}
    begin, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(
        [str(environments.python("serve")), *serve], env=environment, cwd=environments.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout
    said, found, kept, want, took = [], dict[str, float](), threading.Event(), spec.serve.compiled is None, 0.0
    for line in process.stdout:
        said.append(line)
        if "ready: a completion came back" in line:
            found, took = json.loads(line)["phases"], time.monotonic() - begin
        if "compiled code is kept" in line:
            kept.set()
        if found and (kept.is_set() or not want):
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    if not found:
        sys.exit("".join(said)[-4000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"phases": found, "seconds": round(took, 1), "processor_s": round(spent, 1)}


def measure(model: Path, port: int, download_s: float) -> dict[str, Any]:
    """The four starts."""
    rows, code_mib = [], 0.0
    with tempfile.TemporaryDirectory() as place, local_bucket.running(Path(place) / "home", BUCKETS):
        work = Path(place) / "work"
        entry = registry.publish(BUCKETS, model, name="measured", stage_id=f"base-{manifest_of(model).digest}", kind="base", format="bf16")
        serve = ServeSpec(max_model_tokens=512, max_sequences=4, dtype="float32", cpu_kv_cache_mib=64, eager=False, model="measured")
        spec = Spec(profile="measured", buckets=BUCKETS, serve=serve.model_copy(update=registry.pinned(entry)))
        host, _, number = os.environ["STORAGE_EMULATOR_HOST"].removeprefix("http://").rpartition(":")
        line = Line((host, int(number)), entry.bytes / download_s)
        os.environ["STORAGE_EMULATOR_HOST"] = line.address
        wire.forget_clients()
        for name in ("nothing compiled", "compiled code published", "downloaded first", "the same disk"):
            if name != "the same disk":
                shutil.rmtree(work, ignore_errors=True)
            work.mkdir(exist_ok=True)
            begin = time.monotonic()
            if name == "downloaded first":
                fetch.download(BUCKETS, entry, work / "models" / entry.name)
            first_s = time.monotonic() - begin
            row = start(spec, work, port)
            rows.append({"start": name, "download_s": round(first_s, 1), **row, "seconds": round(row["seconds"] + first_s, 1)})
            print(json.dumps(rows[-1]), flush=True)
            if spec.serve.compiled is None:
                there = compiled.publish(BUCKETS, JOB)
                code_mib = sum(item.size for item in storage.listing(f"{BUCKETS.models}/compiled")) / 2**20
                spec = spec.model_copy(update={"serve": spec.serve.model_copy(update={"compiled": there})})
    return {"model_mib": round(entry.bytes / 2**20), "download_s": download_s, "compiled_mib": round(code_mib, 1), "starts": rows}


def table(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    columns = [name for name in NAMES if any(name in row["phases"] for row in record["starts"])]
    lines = [f"| start | download first | {' | '.join(columns)} | together s | processor s |", "|" + "---|" * (len(columns) + 4)]
    for row in record["starts"]:
        cells = [row["download_s"] or "–", *(row["phases"].get(name, "–") for name in columns), row["seconds"], row["processor_s"]]
        lines.append(f"| {row['start']} | {' | '.join(f'{cell:.1f}' if isinstance(cell, float) else cell for cell in cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--port", type=int, default=18700)
    parser.add_argument("--download-s", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=RECORD)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if not arguments.table:
        record = measure(arguments.model.resolve(), arguments.port, arguments.download_s)
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    print(table(json.loads(arguments.out.read_text())))


if __name__ == "__main__":
    main()
