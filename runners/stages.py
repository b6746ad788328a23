"""The frame around each stage that makes a model: is it done already? fetch its inputs, run it, write its record, publish it.

The stage itself (``train.py``, ``merge.py``, ``quantize.py``) knows nothing of buckets. Killed at any instant, the same call goes on: inputs
are verified, training resumes from its newest checkpoint, a publication that was cut off is finished.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runners import log, outside
from runners.artifacts import checkpoint_bucket, fetch, layout, registry, storage
from runners.artifacts.record import RECORD, Cost, Phase, Record, Stopwatch, account, code_version, manifest_of
from runners.artifacts.registry import Entry
from runners.errors import UserError
from runners.identity import kind_of, lock_file, model_name, stage_id, verify_code
from runners.pipeline import STAGE
from runners.spec import BucketSpec, Spec, load, parse, spec_digest


def load_spec(uri: str) -> Spec:
    """A spec from a file or from the bucket."""
    if not uri.startswith("gs://"):
        return load(Path(uri))
    found = storage.read_json(uri)
    if found is None:
        raise UserError(f"there is no spec at {uri}", "a resolved spec", "pulumi up uploads it; at home `elson run` does")
    outside.check_named_by_digest(uri, found[0])
    return parse(found[0], uri)


def save_spec(spec: Spec) -> str:
    """Put a resolved spec into the scratch bucket under its digest; returns its URI."""
    uri = layout.spec(spec.buckets, spec_digest(spec))
    storage.update_json(uri, lambda _: spec.model_dump(mode="json"))
    return uri


def train(spec: Spec, work: Path) -> Entry:
    """Train and publish the adapter; nothing is done when it is there."""
    name, made_id = model_name(spec, "train"), stage_id(spec, "train")
    if done := registry.complete(spec.buckets, name, made_id):
        return _said(done)
    from runners.training.several import train_on_all_cards

    verify_code(spec, "train")

    watch = Stopwatch()
    with watch.phase("download"):
        base, dataset = base_folder(spec, work), dataset_folder(spec, work)
        resume = checkpoint_bucket.newest(spec.buckets, made_id, work)
    with checkpoint_bucket.Uploads(spec.buckets, made_id) as uploads:
        result = train_on_all_cards(spec, base, dataset, work, save_checkpoint=uploads.save, resume=resume)
    parents = {"base_model": spec.base_model.id or "", "dataset": spec.dataset.id or ""}
    entry = _publish(spec, "train", work / "adapter", name, made_id, watch, result, parents)
    storage.delete(layout.checkpoints(spec.buckets, made_id))
    shutil.rmtree(work / "checkpoints", ignore_errors=True)
    return entry


def merge(spec: Spec, work: Path) -> Path:
    """Merge the adapter into the base, past the parity gate; returns the merged folder, whose record is written last.

    Published only where ``merge.publish`` says so: quantization on the same machine reads the folder, and nobody else needs 29.5 GB.
    """
    name, made_id, merged = model_name(spec, "merge"), stage_id(spec, "merge"), work / "merged"
    done = registry.complete(spec.buckets, name, made_id) if spec.merge.publish else None
    if done:
        fetch.download(spec.buckets, _said(done), merged)
        return merged
    parents = {"base_model": spec.base_model.id or "", "adapter": stage_id(spec, "train"), "dataset": spec.dataset.id or ""}
    if not _is_made(merged, made_id):
        from runners.compression.merge import merge

        verify_code(spec, "merge")
        watch = Stopwatch()
        with watch.phase("download"):
            base, dataset, adapter = base_folder(spec, work), dataset_folder(spec, work), _adapter(spec, work)
        result = merge(spec, base, adapter, dataset, work)
        _write_record(spec, "merge", merged, name, made_id, watch, result, parents)
    if spec.merge.publish:
        registry.publish(spec.buckets, merged, name=name, stage_id=made_id, kind="merged", format=STAGE["merge"].format, parents=parents)
    return merged


def head(spec: Spec, work: Path, merged: Path) -> Entry | None:
    """Train the EAGLE-3 head that the spec asks for on the merged model, and publish it; nothing is done when it is there, or none is asked for.

    A head that misses a gate, or cannot be made or published, is not there; the log says why. The model goes on: a head costs it speed, not answers.
    """
    if spec.head is None:
        return None
    try:
        return _head(spec, work, merged)
    except UserError as error:
        for gate in getattr(error, "gates", ()):
            log.event("gate", name=gate.name, value=gate.value, rule=gate.rule, bound=gate.bound, passed=gate.passed)
        log.error("no head is published; the model goes on without one", problem=error.found, fix=error.fix)
    except Exception as error:  # noqa: BLE001  # whatever it is (a full card, a lost bucket): the training that was paid for goes on to its model
        log.error("no head is published; the model goes on without one", problem=f"{type(error).__name__}: {error}"[:500])
    return None


def _head(spec: Spec, work: Path, merged: Path) -> Entry:
    name, made_id = model_name(spec, "head"), stage_id(spec, "head")
    if done := registry.complete(spec.buckets, name, made_id):
        return _said(done)
    from runners.compression.head import train_head

    verify_code(spec, "head")
    watch, dataset = Stopwatch(), dataset_folder(spec, work)
    result = train_head(spec, merged, dataset, work)
    parents = {"base_model": spec.base_model.id or "", "adapter": stage_id(spec, "train"), "merged": stage_id(spec, "merge"), "dataset": spec.dataset.id or ""}
    return _publish(spec, "head", result.head, name, made_id, watch, result, parents)


def quantize(spec: Spec, work: Path) -> Entry:
    """Quantize the merged model and publish it; nothing is done when it is there."""
    name, made_id, merged = model_name(spec, "quantize"), stage_id(spec, "quantize"), work / "merged"
    if done := registry.complete(spec.buckets, name, made_id):
        return _said(done)
    from runners.compression.quantize import quantize

    verify_code(spec, "quantize")

    watch = Stopwatch()
    with watch.phase("download"):
        dataset = dataset_folder(spec, work)
        merge_id = stage_id(spec, "merge")
        if not _is_made(merged, merge_id):
            entry = registry.complete(spec.buckets, model_name(spec, "merge"), merge_id)
            if entry is None:
                raise UserError(
                    f"the merged model {merge_id} is neither in {merged} nor in the bucket",
                    "the merge stage's result",
                    "elson merge with the same spec and work folder",
                )
            fetch.download(spec.buckets, entry, merged)
    result = quantize(spec, merged, dataset, work)
    parents = {"base_model": spec.base_model.id or "", "adapter": stage_id(spec, "train"), "merged": merge_id, "dataset": spec.dataset.id or ""}
    return _publish(spec, "quantize", work / "awq", name, made_id, watch, result, parents)


def publish_dataset(buckets: BucketSpec, folder: Path, name: str) -> Entry:
    """Publish a dataset folder under the id of its content, and let ``name`` mean it."""
    return registry.publish(buckets, folder, name=name, stage_id=manifest_of(folder).dataset_id, kind="dataset")


def publish_base(buckets: BucketSpec, folder: Path, name: str) -> Entry:
    """Publish a base model's folder; its id is its content."""
    return registry.publish(buckets, folder, name=name, stage_id=f"base-{manifest_of(folder).digest}", kind="base", format="bf16")


def _publish(spec: Spec, stage: str, folder: Path, name: str, made_id: str, watch: Stopwatch, result: Any, parents: dict[str, str]) -> Entry:
    _write_record(spec, stage, folder, name, made_id, watch, result, parents)
    return registry.publish(spec.buckets, folder, name=name, stage_id=made_id, kind=kind_of(spec, stage), format=STAGE[stage].format, parents=parents)


def _write_record(spec: Spec, stage: str, folder: Path, name: str, made_id: str, watch: Stopwatch, result: Any, parents: dict[str, str]) -> None:
    """The record is the last file of a result: who finds it finds all of it."""
    watch.phases.extend(result.phases)
    gates = tuple(getattr(result, "gates", ()))
    cost = _cost(spec, sum(phase.seconds for phase in watch.phases))
    metrics = {**result.metrics, "plan": against_plan(spec, stage, watch.phases)}
    values = {"parents": parents, "spec": spec.model_dump(mode="json"), "metrics": metrics, "gates": gates, "cost": cost}
    values["code"] = provenance(spec, stage)
    record = account(stage, made_id, watch, name=name, **values)
    outside.sync(folder)
    outside.write_durably(folder / RECORD, record.model_dump_json(indent=1))


def provenance(spec: Spec, stage: str) -> dict[str, Any]:
    """Where a result comes from: the commit, the digest of the stage's code, its lock and the lock's SHA-256, and the image's digest (None at home)."""
    lock = lock_file(stage, backend=spec.quantize.backend)
    image = getattr(spec.environments, STAGE[stage].image)
    made = {"code_digest": getattr(spec.code, stage), "lock": f"{lock.parent.name}/{lock.name}", "lock_sha256": outside.file_digest(lock)}
    return {**code_version(), **made, "image": image if os.environ.get("ELSON_COMMIT") else None}


def against_plan(spec: Spec, stage: str, phases: Sequence[Phase]) -> list[dict[str, Any]]:
    """Each phase of a stage beside the seconds that the plan gave it: how far off it was, and whether it was within the plan's range."""
    planned = spec.machine.planned if spec.machine else {}
    rows = []
    for phase in phases:
        if one := planned.get(f"{stage}: {phase.name}"):
            within = one.optimistic_s <= phase.seconds <= one.pessimistic_s
            off = round(phase.seconds / one.expected_s - 1, 3) if one.expected_s else None
            rows.append({"phase": phase.name, "seconds": phase.seconds, **one.model_dump(), "off": off, "within": within})
    for row in rows:
        log.event("against the plan", stage=stage, **row)
    return rows


def _cost(spec: Spec, seconds: float) -> Cost | None:
    """Dollars of the machine's time, by the price that the spec was resolved with; None at home."""
    machine = spec.machine
    if machine is None or machine.price is None:
        return None
    usd, kind = machine.price.usd_per_hour * seconds / 3600, f"{machine.machine_type} {machine.provisioning_model}"
    return Cost(usd=round(usd, 4), usd_per_hour=machine.price.usd_per_hour, machine_type=kind, priced_at=machine.price.priced_at)


def _is_made(folder: Path, made_id: str) -> bool:
    """Whether a stage's complete result is in a folder of this machine. A record that cannot be read (a loss of power cut it off) counts as none."""
    try:
        return Record.model_validate_json((folder / RECORD).read_bytes()).id == made_id
    except (OSError, ValueError):
        return False


def base_folder(spec: Spec, work: Path) -> Path:
    """The base model, downloaded and verified."""
    entry = registry.usable(spec.buckets, spec.base_model.name)
    if entry.id != spec.base_model.id:
        raise UserError(f"{entry.name} is {entry.id} now; the spec was resolved with {spec.base_model.id}", "the same base model", "plan again: pulumi up")
    fetch.download(spec.buckets, entry, work / "base")
    return work / "base"


def dataset_folder(spec: Spec, work: Path) -> Path:
    """The dataset, downloaded and verified."""
    folder = work / "dataset"
    fetch.download_dataset(spec.buckets, spec.dataset.id or "", folder)
    return folder


def _adapter(spec: Spec, work: Path) -> Path:
    entry, made_id = registry.usable(spec.buckets, model_name(spec, "train")), stage_id(spec, "train")
    if entry.id != made_id:
        raise UserError(
            f"{entry.name} is {entry.id}, and this spec's adapter is {made_id}",
            "the adapter that this spec trains",
            "run the train stage of this spec first",
        )
    fetch.download(spec.buckets, entry, work / "adapter")
    return work / "adapter"


def _said(entry: Entry) -> Entry:
    log.event("done already", name=entry.name, id=entry.id)
    return entry
