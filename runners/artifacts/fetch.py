"""Brings what a registry entry names to this machine, and nothing else: its manifest, its files and its record are those that were published."""

from __future__ import annotations

import functools
from pathlib import Path

from runners import outside
from runners.artifacts import arrival, layout, storage
from runners.artifacts.record import RECORD, Manifest
from runners.artifacts.registry import Entry, folder_of
from runners.errors import UserError
from runners.spec import BucketSpec


def download(buckets: BucketSpec, entry: Entry, folder: Path) -> Manifest:
    """Bring an entry's files here: those that it was published with, and whose record says the same. Raises UserError for any other."""
    if entry.kind == "dataset":
        return download_dataset(buckets, entry.id, folder)

    manifest = storage.download(folder_of(buckets, entry), folder, label=f"download {entry.name}", check=functools.partial(_check, entry))
    _check_record(entry, manifest, folder)
    return manifest


def arriving(buckets: BucketSpec, entry: Entry, folder: Path) -> arrival.Arrival:
    """Bring a model's small files here, verified like those of a download; its weights follow (``Arrival.start``). Raises UserError for any other."""
    found = arrival.begin(folder_of(buckets, entry), folder, functools.partial(_check, entry))
    _check_record(entry, found.manifest, folder)
    return found


def _check(entry: Entry, manifest: Manifest) -> None:
    if manifest.digest != entry.manifest:
        raise _not_the_same(entry.name, f"its files have the digest {manifest.digest}", f"{entry.manifest}, which its registry entry says")


def _check_record(entry: Entry, manifest: Manifest, folder: Path) -> None:
    if entry.kind == "base" or RECORD not in manifest.files:
        return
    record = outside.read_json(folder / RECORD)
    says = record if isinstance(record, dict) else {}
    if (says.get("id", entry.id), says.get("parents", entry.parents)) != (entry.id, entry.parents):
        raise _not_the_same(entry.name, f"its record is of {says.get('id')} with the parents {says.get('parents')}", f"{entry.id} with {entry.parents}")


def download_dataset(buckets: BucketSpec, dataset_id: str, folder: Path) -> Manifest:
    """Bring a dataset here by its id, which is the digest of its content. Raises UserError for other content."""

    def check(manifest: Manifest) -> None:
        if manifest.dataset_id != dataset_id:
            raise _not_the_same(dataset_id, f"its content is that of {manifest.dataset_id}", dataset_id)

    return storage.download(layout.dataset(buckets, dataset_id), folder, label=f"download {dataset_id}", check=check)


def _not_the_same(name: str, found: str, expected: str) -> UserError:
    return UserError(
        f"{name} is not what was published: {found}",
        expected,
        "somebody changed it: restore an older version (gcloud storage ls -a), or publish it again under a new name",
    )
