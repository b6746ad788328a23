"""vLLM's compiled code, and what else a start finds out, made once for a model, an image and a card: kept by the first server, published by a person, read by
every later start.

It is code that a server runs, and a server may not write where models are published: so the first start leaves it with its own job in the scratch bucket,
and `elson models compiled JOB` publishes it. The plan names what is published by id and digest; a server takes nothing else. What was compiled for other
packages or another card is stale: it is left where it is, and the server compiles.
"""

from __future__ import annotations

import shutil
import tarfile
import threading
from pathlib import Path
from typing import Any

from runners import log, outside
from runners.artifacts import layout, storage
from runners.artifacts.record import RECORD, Manifest, Stopwatch, account, packages
from runners.cloud_run.driver import Driver
from runners.errors import UserError
from runners.fields import CompiledSpec, SpeculationSpec
from runners.outside import digest
from runners.spec import BucketSpec, Spec

_ARCHIVE = "cache.tar.gz"
#: Below the server's cache folder: compiled code, which vLLM names by a hash of its version, its settings, the environment and the model's code; what it found
#: out about the model's class (else a process of its own imports torch and vLLM once more), named by a hash of that class's file; how much of the card the KV
#: cache may have, by a hash of settings and card, which vLLM takes only where as much memory is free (else it captures CUDA graphs twice, once to measure).
_PARTS = ("vllm/torch_compile_cache", "vllm/modelinfos", "vllm/startup_plan", "triton")
#: Settings that compiled code depends on, or the plan of the memory that is published with it: vLLM takes its figure, whatever the share of the card is now.
_SETTINGS = {"model_id", "model_manifest", "max_model_tokens", "max_sequences", "gpu_memory_fraction", "kv_cache_dtype", "dtype", "tensor_parallel"}
_SETTINGS |= {"speculation", "eager"}


def compiled_id(spec: Spec) -> str:
    """Id of the compiled code of a resolved spec; of two models, of the first one's."""
    card = spec.machine.machine_type if spec.machine else "none"
    settings = spec.serve.models()[0].model_dump(mode="json", include=_SETTINGS, exclude={"speculation": SpeculationSpec.FOR_THE_PLAN})
    return f"compiled-{digest([settings, spec.environments.serve, card])}"


def published(spec: Spec) -> CompiledSpec | None:
    """What is published for a resolved spec, or None."""
    made_id = compiled_id(spec)
    manifest = storage.read_manifest(layout.compiled(spec.buckets, made_id))
    return CompiledSpec(id=made_id, manifest=manifest.digest) if manifest else None


def made_for(card: Driver | None) -> dict[str, Any]:
    """What compiled code depends on beside its id."""
    return {"packages": packages(), "capability": card.capability if card else 0.0, "cuda": list(card.cuda) if card else []}


def fetch(spec: Spec, work: Path, card: Driver | None) -> bool:
    """Put the compiled code that the plan names into the cache; whether it is there. Raises UserError when it is not what was published."""
    folder, wanted = bring(spec, work), spec.serve.compiled
    if folder is None or wanted is None:
        return False
    says = outside.read_json(folder / RECORD)
    found, expected = (says.get("metrics", {}) if isinstance(says, dict) else {}).get("made_for"), made_for(card)
    if found != expected:
        log.warning("the compiled code is stale: this server compiles", found=str(found)[:300], expected=str(expected)[:300])
        return False
    with tarfile.open(folder / _ARCHIVE) as archive:
        _unpack(archive, work / "cache")
    log.event("compiled code is here", id=wanted.id)
    return True


def bring(spec: Spec, work: Path) -> Path | None:
    """Bring the compiled code that the plan names here, packed; None where it names none or another's. Raises UserError when it is not what was published."""
    wanted = spec.serve.compiled
    if wanted is None:
        return None
    if wanted.id != compiled_id(spec):
        log.warning("the compiled code is stale: this server compiles", found=wanted.id, expected=compiled_id(spec), fix="plan again: pulumi up")
        return None
    uri, folder = layout.compiled(spec.buckets, wanted.id), work / "compiled"

    def check(manifest: Manifest) -> None:
        if manifest.digest != wanted.manifest:
            raise UserError(f"{uri} has the digest {manifest.digest}", f"{wanted.manifest}, which the plan names", "plan again: pulumi up")

    storage.download(uri, folder, label="download compiled code", check=check)
    return folder


def _unpack(archive: tarfile.TarFile, folder: Path) -> None:
    """The archive's files. Not ``extractall``: its filter, without which a member may lie anywhere, is not in Debian's Python 3.11.2."""
    for member in archive:
        if not outside.is_below(member.name) or not (member.isfile() or member.isdir()):
            raise UserError(f"the compiled code has the member {outside.printable(member.name)}", "files and folders below the cache", "publish other code")
        if content := archive.extractfile(member):
            file = folder / member.name
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as target:
                shutil.copyfileobj(content, target)


def keep(spec: Spec, work: Path, card: Driver | None, job: str) -> Manifest | None:
    """Leave what vLLM compiled with the server's job; None when there is nothing, or something already."""
    cache, folder = work / "cache", work / "compiled-here"
    parts = [part for part in _PARTS if any((cache / part).glob("*"))]
    uri = layout.compiled_of_job(spec.buckets, job)
    if not parts or storage.read_manifest(uri) is not None:
        return None
    watch = Stopwatch()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with watch.phase("pack"), tarfile.open(folder / _ARCHIVE, "w:gz", compresslevel=1, dereference=True) as archive:
        for part in parts:
            archive.add(cache / part, part)
    made_id = compiled_id(spec)
    parents = {"model": spec.serve.model_id or "", "image": spec.environments.serve or "", "server": job}
    record = account("compile", made_id, watch, parents=parents, spec=spec.serve.model_dump(mode="json"), metrics={"made_for": made_for(card)})
    outside.write_durably(folder / RECORD, record.model_dump_json(indent=1))
    return storage.upload(folder, uri, label="keep compiled code")


def keep_in_background(spec: Spec, work: Path, card: Driver | None, job: str) -> None:
    """The same in a thread of its own: no request waits for it, and no bucket that fails ends a server."""

    def run() -> None:
        try:
            if keep(spec, work, card, job):
                log.event(f"compiled code is kept; `elson models compiled {job}` publishes it for the next start")
        except (UserError, OSError) as error:
            log.warning("compiled code was not kept", problem=str(error)[:300])

    threading.Thread(target=run, name="compiled", daemon=True).start()


def publish(buckets: BucketSpec, job: str) -> CompiledSpec:
    """Publish what a server kept. Raises UserError when there is nothing, or other code under the same id."""
    source = layout.compiled_of_job(buckets, job)
    manifest = storage.read_manifest(source)
    if manifest is None:
        raise UserError(f"the job {job} kept no compiled code", "a server that compiled and became ready", "elson status; serve.eager must not be true")
    record = storage.read_json(f"{source}/{RECORD}")
    made_id = str(record[0].get("id", "")) if record and isinstance(record[0], dict) else ""
    if not outside.is_below(made_id) or not made_id.startswith("compiled-"):
        raise UserError(f"{source}/{RECORD} names no id of compiled code", "the record of a server", "start the server again without serve.compiled")
    target = layout.compiled(buckets, made_id)
    there = storage.read_manifest(target)
    if there is not None and there.digest != manifest.digest:
        raise UserError(
            f"{made_id} is published already, with other bytes", "code that is not there yet", "the published code is used; nothing needs to be done"
        )
    if there is None:
        storage.copy(source, target, manifest)
        storage.write_manifest(target, manifest)
    return CompiledSpec(id=made_id, manifest=manifest.digest)
