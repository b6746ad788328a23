"""Which buckets a command works on: the project's in the cloud, or the embedded one under ``.elson``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from runners.artifacts import local_bucket
from runners.spec import BucketSpec

LOCAL = BucketSpec(models="gs://models", scratch="gs://scratch")


@dataclass(frozen=True)
class Place:
    """Buckets, and whether they are served from a folder of this machine."""

    buckets: BucketSpec
    home: Path | None

    @contextmanager
    def open(self) -> Iterator[BucketSpec]:
        """The buckets, reachable while the block runs."""
        if self.home is None:
            yield self.buckets
            return
        self.home.mkdir(parents=True, exist_ok=True)
        with local_bucket.running(self.home, self.buckets):
            yield self.buckets


def place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--local``, ``--home``, ``--models-bucket`` and ``--scratch-bucket``; the command receives ``place``."""

    @click.option("--local", is_flag=True, help="Use the embedded bucket of `elson run` instead of Google Cloud.")
    @click.option("--home", type=click.Path(path_type=Path), default=Path(".elson"), show_default=True, help="Folder of the embedded bucket.")
    @click.option("--models-bucket", envvar="ELSON_MODELS_BUCKET", default=BucketSpec().models, show_default=True)
    @click.option("--scratch-bucket", envvar="ELSON_SCRATCH_BUCKET", default=BucketSpec().scratch, show_default=True)
    @functools.wraps(command)
    def wrapped(*arguments: Any, local: bool, home: Path, models_bucket: str, scratch_bucket: str, **keywords: Any) -> Any:
        place = Place(LOCAL, home) if local else Place(BucketSpec(models=models_bucket, scratch=scratch_bucket), None)
        return command(*arguments, place=place, **keywords)

    return wrapped
