"""Kills at random moments, for the reliability page: publishing and downloading, each stage, the evaluation, the server."""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from runners import environments
from runners.artifacts import fetch, local_bucket, registry
from runners.serving import serve
from runners.spec import BucketSpec, EvaluateSpec, Spec
from tests.benchmarks.stage_kills import killed

ROOT = Path(__file__).resolve().parents[2]
BUCKETS = BucketSpec(models="gs://models", scratch="gs://scratch")
#: Kills of one result; then it is left to end.
MOST = 4


def model(folder: Path, seed: int, files: int = 12, size: int = 400_000) -> Path:
    """A folder with the same bytes for the same seed."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        (folder / f"part-{number:02d}.bin").write_bytes(random.Random(seed * 1000 + number).randbytes(size))
    return folder


def tally(kills: int, results: int, differ: int, failed: int = 0) -> dict[str, int]:
    """One row's figures."""
    return {"tried": kills, "lost": differ + failed, "results compared": results, "different": differ, "failed": failed}


def transfers(count: int, folder: Path, seed: int) -> dict[str, Any]:
    """SIGKILL of publishing and of downloading a model; then the same call again, to its end; then its bytes are compared."""
    draw, kills, results, differ, failed = random.Random(seed), 0, 0, 0, 0
    with local_bucket.running(folder / "home", BUCKETS):
        while kills < count:
            name, source, target = f"killed-v{results}", model(folder / "source", results), folder / "target"
            shutil.rmtree(target, ignore_errors=True)

            def publish(name: str = name, source: Path = source) -> None:
                registry.publish(BUCKETS, source, name=name, stage_id="dora-1", kind="dora")

            def download(name: str = name, target: Path = target) -> None:
                fetch.download(BUCKETS, registry.usable(BUCKETS, name), target)

            for work in (publish, download):
                kills += killed(work, draw.uniform(0, 1.0)) is None
                failed += killed(work, 300) != 0
            results += 1
            differ += any(not (target / file.name).exists() or (target / file.name).read_bytes() != file.read_bytes() for file in source.iterdir())
            registry.retract(BUCKETS, registry.usable(BUCKETS, name))
    return tally(kills, results, differ, failed)


def prepared(folder: Path) -> tuple[Path, str]:
    """A home where the whole tiny job is done up to the quantized model; returns it and the URI of the spec."""
    home = folder / "home"
    command = [sys.executable, "-m", "runners", "run", "--profile", "tiny", "--until", "quantize", "--home", str(home)]
    with (folder / "job.log").open("wb") as log:
        if subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode:
            raise SystemExit(f"the tiny job does not run here: {(folder / 'job.log').read_text()[-2000:]}")
    spec = max((home / "bucket" / "scratch" / "specs").glob("*.json"), key=lambda file: file.stat().st_mtime)
    return home, f"gs://scratch/specs/{spec.name}"


def stage(name: str, home: Path, uri: str, count: int, seed: int, until_s: float) -> dict[str, Any]:
    """SIGKILL of one stage's process group, in its own environment (``stage_kills``)."""
    with local_bucket.running(home, BUCKETS):
        python = environments.python("quantize" if name == "quantize" else "train")
        command = [str(python), "-m", "tests.benchmarks.stage_kills", name, "--spec", uri, "--work", str(home / "killed"), "--count", str(count)]
        command += ["--seed", str(seed), "--until-s", str(until_s)]
        own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        with (home / f"{name}.log").open("wb") as log:
            done = subprocess.run(command, cwd=ROOT, env={**os.environ, **own}, stdout=subprocess.PIPE, stderr=log)
    if done.returncode:
        raise SystemExit((home / f"{name}.log").read_text(errors="replace")[-2000:])
    found = json.loads(done.stdout.splitlines()[-1])
    return tally(found["kills"], found["results"], found["differ"], found["failed"])


def evaluation(count: int, folder: Path, seed: int, until_s: float) -> dict[str, Any]:
    """SIGKILL of an evaluation of the whole benchmark against a server that answers at a speaker's pace; every answer and score is compared."""
    from runners.evaluation import cases
    from runners.evaluation.assemble import Request
    from runners.evaluation.run import perform
    from tests.evaluation.stub_server import Play, perfect, serving

    benchmark = ROOT / "data" / "benchmark"
    spec = Spec(evaluate=EvaluateSpec(concurrency=16, request_timeout_s=10, max_retries=2, deadline_s=300))
    draw, kills, results, differ, failed = random.Random(seed), 0, 0, 0, 0

    def outcome(out: Path) -> Any:
        rows = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
        found = json.loads((out / "results.json").read_text())
        scored = [(case["id"], case["passed"], case["failure"], case["answer"], case["checks"]) for case in found["cases"]]
        return {row["case"]: row["reply"]["text"] for row in rows}, len(rows), found["verdict"]["outcome"], found["overall"], scored

    with serving(cases.load(benchmark), Play(perfect, first_token_s=0.02, token_s=0.002)) as url:

        def work(out: Path) -> None:
            perform(Request(spec, url, None, benchmark, None, out))

        begin = time.monotonic()
        if killed(lambda: work(folder / "alone"), 600) != 0:
            raise SystemExit("the evaluation does not run here")
        alone_s, expected = time.monotonic() - begin, outcome(folder / "alone")
        while kills < count and time.monotonic() - begin < until_s:
            out, code = folder / f"run-{results}", None
            for _ in range(MOST):
                if (code := killed(lambda out=out: work(out), draw.uniform(0, alone_s))) is not None:  # type: ignore[misc]
                    break
                kills += 1
            code = killed(lambda out=out: work(out), 600) if code is None else code  # type: ignore[misc]
            results, failed, differ = results + 1, failed + (code != 0), differ + (code == 0 and outcome(out) != expected)
    return tally(kills, results, differ, failed)


def server(home: Path, uri: str, count: int, seed: int, until_s: float) -> dict[str, Any]:
    """SIGKILL of vLLM and of what comes before it (the download of the model) while it starts or answers; then it is started and asked the same."""
    from runners import stages

    draw, kills, results, left, failed, seen = random.Random(seed), Counter[str](), 0, 0, 0, list[str]()
    begin = time.monotonic()
    with local_bucket.running(home, BUCKETS):
        spec = stages.load_spec(uri)
        entry = next(entry for entry in registry.entries(spec.buckets) if entry.kind == "qdora")
        spec = spec.model_copy(update={"serve": spec.serve.model_copy(update=registry.pinned(entry))})

        def start(key: str, port: int, work: Path) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "tests.benchmarks.one_server", str(home / "served.json"), key, str(port), str(work)]
            with (home / "server.log").open("ab") as log:
                return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)

        (home / "served.json").write_text(spec.model_dump_json())
        alone_s = 0.0
        while (sum(kills.values()) < count or not results) and time.monotonic() - begin < until_s:
            shutil.rmtree(home / "serving", ignore_errors=True)
            key, port = secrets.token_urlsafe(24), local_bucket.free_port()
            for _ in range(2 if alone_s else 0):
                process = start(key, port, home / "serving")
                time.sleep(draw.uniform(0, alone_s * 1.2))
                if process.poll() is None:
                    kills["kills"] += 1
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                left += _left(key, 60)
            once = time.monotonic()
            process = start(key, port, home / "serving")
            try:
                url = f"http://127.0.0.1:{port}"
                serve.wait_until_ready(url, key, spec.serve.served_model_name, timeout_s=600, alive=process)
                seen.append(_answer(url, key, spec.serve.served_model_name))
                alone_s = alone_s or time.monotonic() - once
            except Exception as error:  # noqa: BLE001 - counted
                failed += 1
                print(f"server: {error}", file=sys.stderr)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                left += _left(key, 60)
            results += 1
    found = tally(sum(kills.values()), results, sum(answer != seen[0] for answer in seen), failed)
    return {**found, "lost": found["lost"] + left, "processes left": left}


def _left(key: str, within_s: float) -> int:
    """Processes that have a server's key in their environment after so many seconds: what its owner's death left behind."""
    end = time.monotonic() + within_s
    while found := [file for file in Path("/proc").glob("[0-9]*/environ") if key.encode() in _environment(file)]:
        if time.monotonic() > end:
            break
        time.sleep(0.5)
    return len(found)


def _environment(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _answer(url: str, key: str, name: str) -> str:
    import urllib.request

    body = {"model": name, "messages": [{"role": "user", "content": "What is an IRA?"}], "max_tokens": 24, "temperature": 0}
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers), timeout=300) as answer:
        return str(json.load(answer)["choices"][0]["message"]["content"])
