"""Checkpoints on their way to the bucket, when the training is faster than the way."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from runners.artifacts import checkpoint_bucket, storage
from runners.artifacts.checkpoint_bucket import Uploads, step_name
from runners.artifacts.record import MANIFEST, manifest_of
from runners.errors import UserError
from runners.spec import BucketSpec

TRAIN = "dora-1"


def checkpoint(work: Path, step: int) -> Path:
    """A whole checkpoint, as the training leaves it."""
    folder = work / "checkpoints" / step_name(step)
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "weights").write_bytes(b"%d" % step * 1000)
    (folder / "state.json").write_text(f'{{"step": {step}}}')
    (folder / MANIFEST).write_text(manifest_of(folder).model_dump_json())
    return folder


def all_of_it(folder: Path) -> None:
    shutil.rmtree(folder)


def the_manifest_first(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    (folder / "state.json").unlink()


def the_manifest_last(folder: Path) -> None:
    (folder / "adapter" / "weights").unlink()


@pytest.mark.parametrize("removed", [all_of_it, the_manifest_first, the_manifest_last])
def test_a_checkpoint_that_went_before_its_turn_is_not_uploaded_as_less(removed: object, buckets: BucketSpec, tmp_path: Path) -> None:
    """The training keeps two; when the way to the bucket is slower, the next to go may be gone, or going."""
    uploads = Uploads(buckets, TRAIN)
    folders = {step: checkpoint(tmp_path / "there", step) for step in (1, 2, 3)}
    uploads.save(1, folders[1])
    uploads.save(2, folders[2])
    assert callable(removed)
    removed(folders[2])
    with uploads:
        pass
    assert storage.read_manifest(f"{uploads.root}/{step_name(2)}") is None
    found = checkpoint_bucket.newest(buckets, TRAIN, tmp_path / "here")
    assert found is None or (found.name == step_name(1) and manifest_of(found) == manifest_of(folders[1]))
    with (again := Uploads(buckets, TRAIN)):
        again.save(3, folders[3])
    found = checkpoint_bucket.newest(buckets, TRAIN, tmp_path / "here")
    assert found and found.name == step_name(3) and manifest_of(found) == manifest_of(folders[3])


def test_of_those_that_wait_the_newest_goes(buckets: BucketSpec, tmp_path: Path) -> None:
    """On a way slower than the training, older ones would only hold up the one that a resume begins with."""
    uploads = Uploads(buckets, TRAIN)
    for step in range(1, 6):
        uploads.save(step, checkpoint(tmp_path / "there", step))
    with uploads:
        pass
    assert {stored.path.split("/")[0] for stored in storage.listing(uploads.root)} == {step_name(5)}


def test_a_manifest_without_a_file_is_no_checkpoint(buckets: BucketSpec, tmp_path: Path) -> None:
    with (uploads := Uploads(buckets, TRAIN)):
        uploads.save(1, checkpoint(tmp_path / "there", 1))
    storage.client().bucket("scratch").blob(f"checkpoints/{TRAIN}/{step_name(2)}/{MANIFEST}").upload_from_string('{"files": {}}')
    found = checkpoint_bucket.newest(buckets, TRAIN, tmp_path / "here")
    assert found and found.name == step_name(1)


def test_a_folder_without_a_file_is_not_uploaded(buckets: BucketSpec, tmp_path: Path) -> None:
    for folder in (tmp_path / "missing", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(UserError, match="no file"):
            storage.upload(folder, f"{buckets.models}/x")
    assert storage.listing(f"{buckets.models}/x") == []
