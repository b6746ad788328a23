"""Which buckets a command works on: those of the user's project in the cloud, or the embedded ones under ``.elson``.

In this order: ``--models-bucket`` and ``--scratch-bucket``; ELSON_MODELS_BUCKET and ELSON_SCRATCH_BUCKET; the spec of ``--stack``, or of all stacks
if they agree; which without ``buckets:`` means PROJECT-elson-models. There is no default that holds for everybody: bucket names are global, and
such a name could belong to a stranger. For the same reason a bucket that is not of the user's project is refused before anything is read or written.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from runners.artifacts import local_bucket
from runners.commands import completion
from runners.errors import UserError
from runners.spec import BucketSpec

LOCAL = BucketSpec(models="gs://models", scratch="gs://scratch")


@dataclass(frozen=True)
class Place:
    """Buckets by option, and whether they are served from a folder of this machine."""

    home: Path | None
    models: str | None = None
    scratch: str | None = None
    stack: str | None = None

    @property
    def project(self) -> str:
        """The user's project; empty where none is known."""
        return "" if self.home else resolve(self.models, self.scratch, self.stack)[1]

    @contextmanager
    def open(self, *, reads_only: bool = False, stays: bool = False) -> Iterator[BucketSpec]:
        """The buckets, reachable while the block runs. Raises UserError when no bucket is named, or one belongs to another project.

        Args:
            reads_only: the command changes nothing, so it may share the embedded bucket with a run.
            stays: it may go on after that run has ended.
        """
        if self.home is None:
            found, project = resolve(self.models, self.scratch, self.stack)
            for uri in (found.models, found.scratch):
                must_belong(uri, project)
            yield found
            return
        local_bucket.make_home(self.home)
        with local_bucket.running(self.home, LOCAL, reads_only=reads_only, stays=stays):
            yield LOCAL


def resolve(models: str | None, scratch: str | None, stack: str | None) -> tuple[BucketSpec, str]:
    """The buckets, and the project that owns them (empty where none is known)."""
    if models and scratch:
        return BucketSpec(models=models, scratch=scratch), os.environ.get("GOOGLE_CLOUD_PROJECT", "")
    found, project = _of_stacks(stack)
    return BucketSpec(models=models or found.models, scratch=scratch or found.scratch), project


def _of_stacks(name: str | None) -> tuple[BucketSpec, str]:
    from runners.planning import stacks

    known = [stacks.load(one) for one in ([name] if name else stacks.names())]
    named = {(stack.spec.buckets, stack.project) for stack in known if stack.spec.buckets != BucketSpec()}
    project = os.environ.get("GOOGLE_CLOUD_PROJECT", "")
    if not known and project:
        return stacks.buckets_of(project), project
    if not named:
        raise UserError(
            "no bucket is named: no project is set",
            "a project, whose buckets are PROJECT-elson-models and PROJECT-elson-scratch",
            "export GOOGLE_CLOUD_PROJECT=my-project; or pass --models-bucket and --scratch-bucket; or --local for the embedded bucket",
        )
    if len(named) > 1:
        shown = ", ".join(sorted(buckets.models for buckets, _ in named))
        raise UserError(f"the stacks name different buckets: {shown}", "one place", f"pass --stack, one of {', '.join(stacks.names())}")
    return named.pop()


def must_belong(uri: str, project: str) -> None:
    """Refuse a bucket that is not in the project. Without a project there is nothing to compare: the user named the bucket."""
    from runners.artifacts import storage

    if not project:
        return
    name = storage.split(uri)[0]
    with storage.explained(uri):
        try:
            found = {bucket.name for bucket in storage.client().list_buckets(project=project, prefix=name, timeout=30)}
        except Exception as error:
            if getattr(error, "code", None) != 403:
                raise
            raise UserError(
                f"the buckets of {project} may not be listed, so it is not known whether {name} is one of them",
                "storage.buckets.list on the project",
                f"ask its owner for roles/storage.bucketViewer on {project}, or unset GOOGLE_CLOUD_PROJECT and name both buckets yourself",
            ) from None
    if name not in found:
        raise UserError(
            f"the project {project} has no bucket {name}: it was not made yet, or belongs to somebody else",
            "a bucket of your own project",
            "pulumi up -s foundation makes it; or set GOOGLE_CLOUD_PROJECT to the project that owns it",
        )


def place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--local``, ``--home``, ``--stack``, ``--models-bucket`` and ``--scratch-bucket``; the command receives ``place``."""

    @click.option("--local", is_flag=True, help="Use the embedded bucket of `elson run` instead of Google Cloud.")
    @click.option("--home", type=click.Path(file_okay=False, path_type=Path), default=Path(".elson"), show_default=True, help="Folder of the embedded bucket.")
    @click.option("-s", "--stack", shell_complete=completion.stacks, help="Stack whose buckets to use. Default: what all stacks agree on.")
    @click.option("--models-bucket", envvar="ELSON_MODELS_BUCKET", show_envvar=True, help="gs://… Default: the stack's, gs://PROJECT-elson-models.")
    @click.option("--scratch-bucket", envvar="ELSON_SCRATCH_BUCKET", show_envvar=True, help="gs://… Default: the stack's, gs://PROJECT-elson-scratch.")
    @functools.wraps(command)
    def wrapped(*arguments: Any, local: bool, home: Path, stack: str | None, models_bucket: str | None, scratch_bucket: str | None, **keywords: Any) -> Any:
        place = Place(home) if local else Place(None, models_bucket, scratch_bucket, stack)
        return command(*arguments, place=place, **keywords)

    return wrapped
