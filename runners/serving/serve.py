"""Serve a published model with vLLM's OpenAI-compatible server.

What is served is always a named folder, checked against its manifest, and given to ``vllm serve`` with an argument list made by a pure function.
vLLM starts while the weights arrive, and loads each shard when it is verified (``runners/serving/loader.py``). It binds to loopback; the gateway
(``images/gateway``) is what others reach. The key comes from the environment (``VLLM_API_KEY``) or a file, never from an argument. Ready means that a
completion came back: ``/health`` answers 200 on a server whose engine dies at the first request.

    elson serve --spec gs://scratch/specs/<digest>.json --work /scratch
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from runners import log, outside
from runners.artifacts import drafts, fetch, layout, registry, served_with, storage
from runners.artifacts.arrival import Arrival
from runners.artifacts.record import now
from runners.artifacts.registry import Entry
from runners.cloud_run import driver
from runners.cloud_run.server import Engine, Health, Start, look_after
from runners.errors import UserError
from runners.fields import SpeculationSpec
from runners.pipeline import ADAPTERS
from runners.processes import QUIET_THREADS
from runners.serving import compiled, loader
from runners.serving.graphs import graph_sizes
from runners.serving.phases import Phases
from runners.spec import ServeSpec, Spec, spec_digest
from runners.training import precision

Device = Literal["cuda", "cpu"]
ROOT = Path(__file__).resolve().parents[2]


def vllm_arguments(
    spec: ServeSpec,
    folder: Path,
    *,
    device: Device,
    quantized: bool,
    port: int,
    capability: float = 8.9,
    draft: Path | None = None,
    arriving: bool = False,
) -> list[str]:
    """The whole argument list after ``vllm``.

    Args:
        folder: the model, with its tokenizer and chat template.
        capability: CUDA compute capability; below 8.0 (T4: 7.5) there is no bf16.
        draft: folder of the speculation's model, where it has one.
        arriving: the weights are still on their way; loader.py waits for them.
    """
    dtype = spec.dtype
    if dtype == "auto" and device == "cpu":
        dtype = precision.serving_dtype(quantized=quantized)
    elif dtype == "auto" and capability < 8.0:
        dtype = "float16"
    arguments = ["serve", str(folder), "--served-model-name", spec.served_model_name, "--host", "127.0.0.1", "--port", str(port)]
    arguments += ["--dtype", dtype, "--max-model-len", str(spec.max_model_tokens), "--max-num-seqs", str(spec.max_sequences)]
    arguments += ["--kv-cache-dtype", spec.kv_cache_dtype, "--enable-prefix-caching" if spec.prefix_caching else "--no-enable-prefix-caching"]
    # Each answer tells the settings, so that an evaluation knows them; vLLM's own fingerprint is its version and a hash.
    arguments += ["--fingerprint-mode", "custom", "--fingerprint-value", served_with.of(spec).text]
    arguments += ["--disable-uvicorn-access-log", "--seed", "0"]
    if spec.speculation:
        arguments += ["--speculative-config", json.dumps(speculative_config(spec.speculation, draft), sort_keys=True)]
        # Each answer tells how many drafted tokens were accepted (runners/evaluation/acceptance.py).
        arguments += ["--per-request-spec-decode-metrics", "summary"]
    if arriving:
        arguments += ["--load-format", loader.LOAD_FORMAT]
    if device == "cpu":
        eager = ["--enforce-eager"] if spec.eager is not False else []
        return [*arguments, *eager, "--kv-cache-memory-bytes", f"{spec.cpu_kv_cache_mib}M"]
    arguments += ["--enforce-eager"] if spec.eager else ["--cudagraph-capture-sizes", *map(str, graph_sizes(spec))]
    return [*arguments, "--gpu-memory-utilization", str(spec.gpu_memory_fraction), "--tensor-parallel-size", str(spec.tensor_parallel)]


def speculative_config(spec: SpeculationSpec, draft: Path | None) -> dict[str, Any]:
    """vLLM's ``--speculative-config`` (docs.vllm.ai, Speculative Decoding)."""
    method = {"ngram": "ngram", "draft": "draft_model", "eagle3": "eagle3"}[spec.method]
    found: dict[str, Any] = {"method": method, "num_speculative_tokens": spec.draft_tokens}
    if (spec.method == "ngram") != (draft is None):
        raise ValueError(f"speculation by {spec.method} with {draft}")
    # Runs of two to four words are looked up in the question: figures and terms that an answer repeats.
    return found | ({"prompt_lookup_min": 2, "prompt_lookup_max": 4} if draft is None else {"model": str(draft)})


def vllm_environment(key: str, *, device: Device, work: Path) -> dict[str, str]:
    """Environment of the server: the key, no telemetry, no hub, caches below the work folder."""
    quiet = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "INFO"}
    caches = {"VLLM_CACHE_ROOT": str(work / "cache" / "vllm"), "TRITON_CACHE_DIR": str(work / "cache" / "triton"), "VLLM_ENABLE_STARTUP_PLAN": "1"}
    threads = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_TARGET_DEVICE": "cpu", **QUIET_THREADS} if device == "cpu" else {}
    return {**os.environ, **quiet, **caches, **threads, "VLLM_API_KEY": key}


def fetch_model(spec: Spec, base: Path | None, work: Path) -> tuple[Path, Entry]:
    """Bring the model that the spec names here, ready for vLLM. A DoRA adapter is merged into its base, since vLLM cannot apply one.

    Args:
        base: the base model's folder if it is here already.
    """
    entry = _planned_entry(spec)
    folder = work / "models" / entry.name
    fetch.download(spec.buckets, entry, folder)
    if entry.kind in ADAPTERS:
        return _merged(spec, entry, folder, base, work), entry
    return folder, entry


def bring(spec: Spec, work: Path) -> None:
    """Bring what a server of this spec reads here, verified, and start nothing: a boot image with weights is made so. Every start checks it again.

    Of two models, what the first one reads: the second one's weights come from the bucket, as its plan says.
    """
    entry = _planned_entry(spec)
    fetch.download(spec.buckets, entry, work / "models" / entry.name)
    if entry.kind in ADAPTERS:
        base = registry.base_of(spec.buckets, entry)
        fetch.download(spec.buckets, base, work / "models" / base.name)
    fetch_draft(spec, work)
    compiled.bring(spec, work)
    log.event("weights are here", model=entry.name, id=entry.id, manifest=entry.manifest)


def begin_model(spec: Spec, work: Path) -> tuple[Path, Entry, Arrival | None]:
    """The same for a server that starts while its weights are on their way; an adapter's model has to be merged first."""
    entry = _planned_entry(spec)
    if entry.kind in ADAPTERS:
        return *fetch_model(spec, None, work), None
    folder = work / "models" / entry.name
    return folder, entry, fetch.arriving(spec.buckets, entry, folder)


def _planned_entry(spec: Spec) -> Entry:
    entry = registry.to_serve(spec.buckets, spec.serve.model)
    registry.refuse_unproven_cache(spec.buckets, spec.serve)
    planned, now = (spec.serve.model_id, spec.serve.model_manifest), (entry.id, entry.manifest)
    if any(wanted and wanted != found for wanted, found in zip(planned, now, strict=True)):
        raise UserError(
            f"{entry.name} is {now[0]} ({now[1]}) now; the plan was made for {planned[0]} ({planned[1]})", "the planned model", "plan again: pulumi up"
        )
    return entry


def _merged(spec: Spec, entry: Entry, adapter: Path, base: Path | None, work: Path) -> Path:
    from runners.compression.merge import merge_streaming

    parent = registry.base_of(spec.buckets, entry)
    source = base or work / "models" / parent.name
    fetch.download(spec.buckets, parent, source)
    merged = work / "models" / f"{entry.name}-merged"
    if not merged.exists():
        merge_streaming(source, adapter, merged)
    return merged


def fetch_draft(spec: Spec, work: Path) -> Path | None:
    """Bring the speculation's model here, as it was planned; None where it has none."""
    wanted = spec.serve.speculation
    entry = drafts.draft_of(spec.buckets, wanted, _planned_entry(spec)) if wanted else None
    if wanted is None or entry is None:
        return None
    if (wanted.model_id and wanted.model_id != entry.id) or (wanted.model_manifest and wanted.model_manifest != entry.manifest):
        raise UserError(f"{entry.name} is {entry.id} now; the plan was made for {wanted.model_id}", "the planned draft", "plan again: pulumi up")
    folder = work / "models" / entry.name
    fetch.download(spec.buckets, entry, folder)
    return folder


def is_quantized(folder: Path) -> bool:
    """Whether a model folder says that its weights are quantized."""
    config = outside.read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise UserError(f"{folder / 'config.json'} is no mapping", "a model's config.json", "publish the model again")
    return "quantization_config" in config


def read_key() -> str:
    """The API key, from a file or VLLM_API_KEY. Raises UserError when there is none: an open server is never started.

    ELSON_GATEWAY_KEYS names the users' keys, one a line, where no agent makes a key between gateway and server (Cloud Run): that is then the digest of
    their first one, here and in images/gateway/start.sh, so that none of theirs is in this process's environment.
    """
    file, shared = os.environ.get("ELSON_API_KEY_FILE"), os.environ.get("ELSON_GATEWAY_KEYS")
    if shared and (keys := outside.text(Path(shared), "a file of keys").split()):
        return hashlib.sha256(keys[0].encode()).hexdigest()
    key = outside.text(Path(file), "a file with the key").strip() if file else os.environ.get("VLLM_API_KEY", "")
    if len(key) < 16:
        raise UserError(
            f"the API key is {'missing' if not key else 'too short'}",
            "at least 16 characters in VLLM_API_KEY or in the file ELSON_API_KEY_FILE names",
            "openssl rand -hex 24",
        )
    return key


def execute(spec: Spec, work: Path, ports: Sequence[int], ready_port: int | None = None) -> None:
    """Become the parent of a server for each model, which start while their weights arrive; does not return. Raises UserError when a port is taken.

    Args:
        ports: vLLM's, one for each model.
        ready_port: where ``/health`` is answered (Cloud Run); without it somebody else asks the servers whether they are ready (a VM's agent).
    """
    key, models = read_key(), spec.serve.models()
    if len(ports) < len(models):
        raise UserError(f"{len(models)} models are to be served, on {len(ports)} port", "a port for each", "--port N --second-port M")
    for port in ports:
        _need_free_port(port)
    health, stopping = Health(ready_port) if ready_port else None, threading.Event()
    begin, engines = time.monotonic(), list[Engine]()
    tell = functools.partial(_tell, spec) if health else None
    for number, (model, port) in enumerate(zip(models, ports, strict=False)):
        is_last = number == len(models) - 1
        phases = Phases(begin, engines[-1].start.phases if engines else None)
        one, folder = spec.model_copy(update={"serve": model}), work / "second" if number else work
        engines.append(_engine(one, folder, port, key, Start(phases, tell=tell if is_last else None, is_last=is_last), keeps=not number))
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    left_s = spec.serve.ready_timeout_s - (time.monotonic() - begin)
    sys.exit(look_after(engines, health=health, key=key, ready_timeout_s=left_s, stopping=stopping))


def _engine(spec: Spec, work: Path, port: int, key: str, start: Start, *, keeps: bool) -> Engine:
    """The server of one model, which is not started yet. ``keeps``: what it compiles may be left for later starts."""
    folder, entry, arrival = begin_model(spec, work)
    draft, card = fetch_draft(spec, work), driver.installed()
    is_compiled, job = compiled.fetch(spec, work, card), os.environ.get("ELSON_JOB", "")
    where: Device = "cuda" if card else "cpu"
    arguments = vllm_arguments(
        spec.serve,
        folder,
        device=where,
        quantized=is_quantized(folder),
        port=port,
        capability=card.capability if card else 0.0,
        draft=draft,
        arriving=arrival is not None,
    )
    command = [str(Path(sys.executable).parent / "vllm"), *arguments]
    environment = vllm_environment(key, device=where, work=work) | driver.environment(card, driver.wheels_cuda(), os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(loader.install(work / "plugins")), str(ROOT), os.environ.get("PYTHONPATH")]))
    name, cuda = spec.serve.served_model_name, ".".join(map(str, card.cuda)) if card else "none"
    log.event("serving", model=entry.name, id=entry.id, name=name, device=where, port=port, cuda=cuda)
    keep = None if is_compiled or not keeps or not job.startswith("serve-") else functools.partial(compiled.keep_in_background, spec, work, card, job)
    return Engine(command, environment, port, name, replace(start, arrival=arrival, engine_is_up=keep))


def _tell(spec: Spec, status: str, phases: dict[str, float]) -> None:
    """Write down where no agent does it what `elson status` shows of a server."""
    job = os.environ.get("ELSON_JOB", "")
    if not job.startswith("serve-"):
        return
    state = {"job_id": job, "role": "serve", "status": status, "attempts": 0, "updated_at": now(), "phases": phases, "version": 1}
    state["spec_uri"] = layout.spec(spec.buckets, spec_digest(spec))
    try:
        storage.update_json(f"{layout.job(spec.buckets, job)}/state.json", lambda old: {**(old or {}), **state})
    except UserError as error:
        log.warning("the server's state was not written", problem=error.found[:300])


def wait_until_ready(url: str, key: str, model: str, *, timeout_s: float, alive: subprocess.Popen[bytes] | None = None) -> float:
    """Wait for the first completion; returns the seconds it took. Raises UserError when the server ends or the time is up."""
    begin = time.monotonic()
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Say ready."}], "max_tokens": 1}).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    reason = "no connection yet"
    with log.progress("waiting for the first completion", None, "s") as meter:
        while (waited := time.monotonic() - begin) < timeout_s:
            if alive and alive.poll() is not None:
                raise UserError(f"the server ended with code {alive.returncode} before it was ready", "a running server", "see its log")
            try:
                with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/chat/completions", body, headers), timeout=60) as answer:
                    if json.load(answer)["choices"]:
                        return time.monotonic() - begin
            except urllib.error.HTTPError as error:
                reason = f"HTTP {error.code}: {error.read()[:200]!r}"
                if error.code in (401, 403):
                    raise UserError(f"the server refuses the key ({reason})", "the key it was started with", "pass that key") from None
            except (urllib.error.URLError, OSError, ValueError) as error:
                reason = str(error)
            time.sleep(0.5)
            meter.advance(time.monotonic() - begin - waited)
    raise UserError(f"no completion within {timeout_s:.0f} s ({reason})", "a ready server", "see its log, or raise serve.ready_timeout_s")


def _need_free_port(port: int) -> None:
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise UserError(f"port {port} is taken", "a free port", "stop what listens there, or set serve.port") from None
