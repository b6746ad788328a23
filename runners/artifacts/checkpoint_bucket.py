"""Checkpoints on their way to the scratch bucket and back.

A checkpoint is a folder with a manifest; the manifest goes last, so a cut-off upload is never taken for a checkpoint. Uploads run behind the
training: it goes on while the last checkpoint leaves. The two newest are kept.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import threading
from pathlib import Path

from runners import log
from runners.artifacts import layout, storage
from runners.artifacts.record import MANIFEST, manifest_of
from runners.errors import UserError
from runners.spec import BucketSpec

KEPT = 2
_STEP = re.compile(r"step-(\d{6})")


def step_name(step: int) -> str:
    """Folder name of a checkpoint: sorts by step."""
    return f"step-{step:06d}"


def _hold(folder: Path) -> Path:
    """The same files under a name of our own, by hard links: the training keeps two checkpoints and removes older ones at any moment."""
    held = folder.parent / ".uploading"
    shutil.rmtree(held, ignore_errors=True)
    shutil.copytree(folder, held, copy_function=os.link)
    if not (held / MANIFEST).exists():
        raise FileNotFoundError(f"{folder} was removed before its turn: the way to the bucket is slower than the training")
    return held


class Uploads:
    """Uploads checkpoints in the background; use as a context manager, which waits for the last one."""

    def __init__(self, buckets: BucketSpec, train_id: str) -> None:
        self.root = layout.checkpoints(buckets, train_id)
        self._waiting: queue.Queue[tuple[int, Path] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="checkpoint uploads", daemon=True)
        self._failure: BaseException | None = None

    def __enter__(self) -> Uploads:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.put(None)
        self._thread.join()

    def save(self, step: int, folder: Path) -> None:
        """Queue a complete checkpoint folder. When it is gone before its turn, a newer one waits."""
        self._waiting.put((step, folder))

    def _work(self) -> None:
        while (item := self._next()) is not None:
            step, folder = item
            try:
                held = _hold(folder)
                storage.upload(held, f"{self.root}/{step_name(step)}", label=f"checkpoint {step}", expected=storage.manifest_here(held))
                shutil.rmtree(held)
                self._drop_old(step)
            except (UserError, storage.Conflict, FileNotFoundError, shutil.Error) as error:
                # Training is worth more than this copy: say so and go on; the next checkpoint tries again.
                log.warning("checkpoint not uploaded", step=step, reason=str(error))

    def _next(self) -> tuple[int, Path] | None:
        """The newest that waits, or None at the end: an older one would only hold it up."""
        newest = item = self._waiting.get()
        while item is not None and not self._waiting.empty():
            item = self._waiting.get()
            newest = item or newest
        if item is None and newest is not None:
            self._waiting.put(None)
        return newest

    def _drop_old(self, newest: int) -> None:
        names = {stored.path.split("/")[0] for stored in storage.listing(self.root)}
        steps = sorted(int(found[1]) for name in names if (found := _STEP.fullmatch(name)))
        for step in [step for step in steps if step <= newest][:-KEPT]:
            storage.delete(f"{self.root}/{step_name(step)}")


def newest(buckets: BucketSpec, train_id: str, work: Path) -> Path | None:
    """The newest whole checkpoint, from this machine or the bucket; damaged ones are passed over, and said."""
    root, local = layout.checkpoints(buckets, train_id), work / "checkpoints"
    folders = {stored.path.split("/")[0] for stored in storage.listing(root) if stored.path.endswith(f"/{MANIFEST}")}
    in_bucket = {name for name in folders if _STEP.fullmatch(name)}
    here = {path.name for path in local.glob("step-*") if _STEP.fullmatch(path.name)} if local.exists() else set()
    for name in sorted(in_bucket | here, reverse=True):
        if name in here and name not in in_bucket:
            return local / name
        target = local / name
        try:
            if name in here and manifest_of(target) == storage.read_manifest(f"{root}/{name}"):
                return target
            shutil.rmtree(target, ignore_errors=True)
            storage.download(f"{root}/{name}", target, label=f"checkpoint {name}")
            return target
        except UserError as error:
            log.warning("checkpoint passed over", checkpoint=name, reason=error.found)
            shutil.rmtree(target, ignore_errors=True)
    return None
