"""The end of a run: what was published is served and asked, and so are its base and its tuned model, on the same cases.

An evaluation is named by what decides it (model, cases, settings, scorer), so one that was finished is never made again, and one that was cut off goes
on at its next case. The base of two trainings is asked once.
"""

from __future__ import annotations

import functools
import json
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runners import environments, identity, log, outside, stages
from runners.artifacts import layout, local_bucket, storage
from runners.artifacts.record import manifest_of
from runners.artifacts.registry import Entry
from runners.errors import UserError
from runners.local.memory import PeakMemory
from runners.serving import group, serve
from runners.spec import Spec

if TYPE_CHECKING:
    from runners.evaluation.results import EvaluationResult
    from runners.local.run import Run


@dataclass(frozen=True)
class Variant:
    """A model of the run. ``folder`` brings its files here and says where; ``again``: stages whose repetition repeats its evaluation."""

    name: str
    id: str
    folder: Callable[[], Path]
    again: tuple[str, ...]


def others(spec: Spec, work: Path) -> list[Variant]:
    """What the served model is held against: the base model it began as, and the tuned one before quantization. None where the spec asks for none."""
    if spec.evaluate.compared_cases == 0:
        return []
    tuned = identity.stage_id(spec, "merge" if spec.merge.publish else "train")
    return [
        Variant("base", spec.base_model.id or "", lambda: stages.base_folder(spec, work), ("base", "data", "evaluate")),
        Variant("tuned", tuned, lambda: stages.merge(spec, work), ("base", "data", "train", "merge", "evaluate")),
    ]


def measure_other(job: Run, variant: Variant, benchmark: Path, *, redo_from: str | None) -> EvaluationResult:
    """The evaluation of the base or the tuned model, from the bucket where it is there."""
    from runners.evaluation.run import read

    spec = compared(job.spec)
    asked = [variant.id, spec.dataset.id, spec.chat.model_dump(mode="json"), spec.evaluate.model_dump(mode="json"), cases_digest(benchmark)]
    asked += [spec.serve.model_dump(mode="json", exclude={"model", "model_id", "model_manifest", "port"}), scorer_digest()]
    name = f"{variant.name}-{outside.digest(asked)}"
    place, local = layout.run(spec.buckets, name), job.home / "runs" / name
    part = f"evaluate {variant.name}"
    if redo_from in variant.again:
        shutil.rmtree(local, ignore_errors=True)
    elif storage.read_json(f"{place}/results.json"):
        job.begin(part, "done already")
        job.skipped.append(part)
        storage.download(place, local, label=part)
        return read(local)
    job.begin(part)
    with job.watch.phase(f"{variant.name}: download"):
        folder = variant.folder()
    with served(job, folder, part) as (url, key, _), job.watch.phase(part):
        found = ask(spec, job.work, url, key, benchmark, local, variant.id)
    if found.verdict.outcome != "incomplete":
        storage.delete(place)
        storage.upload(local, place, label=f"upload {part}")
    return found


def compared(spec: Spec) -> Spec:
    """The spec that base and tuned are evaluated by: the first ``compared_cases`` of each category, where that is fewer than the served model is asked."""
    few, most = spec.evaluate.compared_cases, spec.evaluate.max_cases
    wanted = min((count for count in (few, most) if count is not None), default=None)
    return spec.model_copy(update={"evaluate": spec.evaluate.model_copy(update={"max_cases": wanted, "compared_cases": None})})


def cases_digest(benchmark: Path) -> str:
    """What the benchmark holds, as part of a name."""
    return manifest_of(benchmark).digest if benchmark.is_dir() else outside.digest(outside.text(benchmark, "a benchmark"))


@functools.cache
def scorer_digest(root: Path = identity.ROOT) -> str:
    """What answers are scored by. Answers that other rules scored are not compared with these."""
    files = sorted(file for kind in ("*.py", "*.yaml") for file in (root / "runners" / "evaluation").glob(kind))
    return outside.digest([[file.name, file.read_text()] for file in files])


def ask(spec: Spec, work: Path, url: str, key: str, benchmark: Path, out: Path, model_id: str) -> EvaluationResult:
    """One evaluation, with the dataset of the spec to look for leaks in."""
    from runners.evaluation.assemble import Request
    from runners.evaluation.run import perform

    return perform(Request(spec, url, key, benchmark, stages.dataset_folder(spec, work), out, model_id=model_id))


@contextmanager
def served(job: Run, folder: Path, part: str) -> Iterator[tuple[str, str, subprocess.Popen[bytes]]]:
    """Serve a folder until the block ends: its address, its key, the server. ``part`` names it in the phases."""
    spec, key, output = job.spec, secrets.token_urlsafe(32), job.home / "vllm.log"
    port = spec.serve.port or local_bucket.free_port()
    url, draft, quantized = f"http://127.0.0.1:{port}", serve.fetch_draft(spec, job.work), serve.is_quantized(folder)
    arguments = serve.vllm_arguments(spec.serve, folder, device="cpu", quantized=quantized, port=port, draft=draft)
    program = environments.python("serve")
    command = [str(program), str(program.parent / "vllm"), *arguments]
    with group.running(command, serve.vllm_environment(key, device="cpu", work=job.work), output) as server, PeakMemory(server.pid) as peak:
        with job.watch.phase(f"{part}: until the first completion"):
            try:
                serve.wait_until_ready(url, key, spec.serve.served_model_name, timeout_s=spec.serve.ready_timeout_s, alive=server)
            except UserError as error:
                raise UserError(error.found, error.expected, f"{error.fix}; the server's last words: {_tail(output)}") from None
        yield url, key, server
    job.peak_mib[part] = peak.mib


def measure_served(job: Run, entry: Entry, benchmark: Path, out: Path, *, keep_serving: bool) -> EvaluationResult:
    """Serve what was published as it will be served, and ask it every case."""
    with job.watch.phase("serve: download"):
        folder, _ = serve.fetch_model(job.spec, None, job.work)
    job.begin("serve")
    with served(job, folder, "serve") as (url, key, server):
        job.begin("evaluate")
        with job.watch.phase("evaluate"):
            found = ask(job.spec, job.work, url, key, benchmark, out, entry.id)
        if keep_serving:
            _keep(job, url, key, server)
    return found


def _keep(job: Run, url: str, key: str, server: subprocess.Popen[bytes]) -> None:
    """Leave the server up until the user ends it; the key goes to a file only its owner reads."""
    file = job.home / "api-key"
    body = json.dumps({"model": job.spec.serve.served_model_name, "messages": [{"role": "user", "content": "What is an IRA?"}]})
    asks = f"curl -s {url}/v1/chat/completions -H \"Authorization: Bearer $(cat {file})\" -H 'Content-Type: application/json' -d '{body}'"
    try:
        file.touch(mode=0o600)
        file.chmod(0o600)
        file.write_text(key)
        # Inside: whoever reads the line may press Ctrl-C before the call that wrote it has returned.
        log.event(f"serving at {url} until Ctrl-C; ask it:\n  {asks}")
        server.wait()
    except KeyboardInterrupt:
        log.event("stopping the server")
    finally:
        file.unlink(missing_ok=True)


def _tail(file: Path) -> str:
    return " | ".join(file.read_text(errors="replace").strip().splitlines()[-3:])[-600:]
