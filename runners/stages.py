"""The frame around each stage that makes a model: is it done already? fetch its inputs, run it, write its record, publish it.

The stage itself (``train.py``, ``merge.py``, ``quantize.py``) knows nothing of buckets. Killed at any instant, the same call goes on: inputs
are verified, training resumes from its newest checkpoint, a publication that was cut off is finished.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from runners import checkpoints, layout, log, registry, storage
from runners.errors import UserError
from runners.record import RECORD, Stopwatch, account
from runners.registry import Entry
from runners.spec import BucketSpec, Spec, merge_id, model_name, quantize_id, train_id


def load_spec(uri: str) -> Spec:
    """A spec from a file or from the bucket."""
    from runners import spec as declared

    if not uri.startswith("gs://"):
        return declared.load(Path(uri))
    found = storage.read_json(uri)
    if found is None:
        raise UserError(f"there is no spec at {uri}", "a resolved spec", "pulumi up uploads it; at home `elson run` does")
    return declared.parse(found[0], uri)


def save_spec(spec: Spec) -> str:
    """Put a resolved spec into the scratch bucket under its digest; returns its URI."""
    from runners.spec import spec_digest

    uri = layout.spec(spec.buckets, spec_digest(spec))
    storage.update_json(uri, lambda _: spec.model_dump(mode="json"))
    return uri


def train(spec: Spec, work: Path) -> Entry:
    """Train and publish the adapter; nothing is done when it is there."""
    name, stage_id = model_name(spec, "dora"), train_id(spec)
    if done := registry.complete(spec.buckets, name, stage_id):
        return _said(done)
    from runners import train as stage

    watch = Stopwatch()
    with watch.phase("download"):
        base, dataset = _base(spec, work), _dataset(spec, work)
        resume = checkpoints.newest(spec.buckets, stage_id, work)
    with checkpoints.Uploads(spec.buckets, stage_id) as uploads:
        result = stage.train(spec, base, dataset, work, save_checkpoint=uploads.save, resume=resume)
    parents = {"base_model": spec.base_model.id or "", "dataset": spec.dataset.id or ""}
    entry = _publish(spec, "train", "dora", work / "adapter", name, stage_id, watch, result, parents)
    storage.delete(layout.checkpoints(spec.buckets, stage_id))
    shutil.rmtree(work / "checkpoints", ignore_errors=True)
    return entry


def merge(spec: Spec, work: Path, *, publish: bool = True) -> Path:
    """Merge the adapter into the base, past the parity gate; returns the merged folder. Published where ``names.merged`` or a profile asks."""
    name, stage_id = model_name(spec, "merged"), merge_id(spec)
    merged = work / "merged"
    if done := registry.complete(spec.buckets, name, stage_id):
        storage.download(registry.folder_of(spec.buckets, _said(done)), merged, label=f"download {name}")
        return merged
    from runners import merge as stage

    watch = Stopwatch()
    with watch.phase("download"):
        base, dataset, adapter = _base(spec, work), _dataset(spec, work), _adapter(spec, work)
    result = stage.merge(spec, base, adapter, dataset, work)
    parents = {"base_model": spec.base_model.id or "", "adapter": train_id(spec), "dataset": spec.dataset.id or ""}
    if publish:
        _publish(spec, "merge", "merged", merged, name, stage_id, watch, result, parents)
    return merged


def quantize(spec: Spec, work: Path, merged: Path | None = None) -> Entry:
    """Quantize the merged model and publish it; nothing is done when it is there."""
    name, stage_id = model_name(spec, "qdora"), quantize_id(spec)
    if done := registry.complete(spec.buckets, name, stage_id):
        return _said(done)
    from runners import quantize as stage

    watch = Stopwatch()
    with watch.phase("download"):
        dataset = _dataset(spec, work)
        if merged is None:
            entry = registry.usable(spec.buckets, model_name(spec, "merged"))
            merged = work / "merged"
            storage.download(registry.folder_of(spec.buckets, entry), merged, label=f"download {entry.name}")
    result = stage.quantize(spec, merged, dataset, work)
    parents = {"base_model": spec.base_model.id or "", "adapter": train_id(spec), "merged": merge_id(spec), "dataset": spec.dataset.id or ""}
    return _publish(spec, "quantize", "qdora", work / "awq", name, stage_id, watch, result, parents)


def publish_dataset(buckets: BucketSpec, folder: Path, name: str, dataset_id: str) -> Entry:
    """Publish a dataset folder under its id, and let ``name`` mean it."""
    return registry.publish(buckets, folder, name=name, stage_id=dataset_id, kind="dataset")


def publish_base(buckets: BucketSpec, folder: Path, name: str) -> Entry:
    """Publish a base model's folder; its id is its content."""
    from runners.record import manifest_of

    return registry.publish(buckets, folder, name=name, stage_id=f"base-{manifest_of(folder).digest}", kind="base")


def _publish(spec: Spec, stage: str, kind: Any, folder: Path, name: str, stage_id: str, watch: Stopwatch, result: Any, parents: dict[str, str]) -> Entry:
    watch.phases.extend(result.phases)
    gates = tuple(getattr(result, "gates", ()))
    record = account(stage, stage_id, watch, name=name, parents=parents, spec=spec.model_dump(mode="json"), metrics=result.metrics, gates=gates)
    (folder / RECORD).write_text(record.model_dump_json(indent=1))
    return registry.publish(spec.buckets, folder, name=name, stage_id=stage_id, kind=kind, parents=parents)


def _base(spec: Spec, work: Path) -> Path:
    entry = registry.usable(spec.buckets, spec.base_model.name)
    storage.download(registry.folder_of(spec.buckets, entry), work / "base", label=f"download {entry.name}")
    return work / "base"


def _dataset(spec: Spec, work: Path) -> Path:
    folder = work / "dataset"
    storage.download(layout.dataset(spec.buckets, spec.dataset.id or ""), folder, label="download dataset")
    return folder


def _adapter(spec: Spec, work: Path) -> Path:
    entry = registry.usable(spec.buckets, model_name(spec, "dora"))
    if entry.id != train_id(spec):
        raise UserError(
            f"{entry.name} is {entry.id}, and this spec's adapter is {train_id(spec)}",
            "the adapter that this spec trains",
            "run the train stage of this spec first",
        )
    storage.download(registry.folder_of(spec.buckets, entry), work / "adapter", label=f"download {entry.name}")
    return work / "adapter"


def _said(entry: Entry) -> Entry:
    log.event("done already", name=entry.name, id=entry.id)
    return entry
