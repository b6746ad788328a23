"""What the shell completes: stacks and profiles by their files, models and jobs of the embedded bucket by theirs.

Only files of this machine are read, so that a key press never waits for a network: names in the cloud's buckets are not completed.
"""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import CompletionItem

from runners import environments


def _matching(names: list[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in sorted(set(names)) if name.startswith(incomplete)]


def stacks(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Stacks that have a file, the user's own included."""
    folder = environments.ROOT / "infra" / "stacks"
    return _matching([file.name.removeprefix("Pulumi.").removesuffix(".yaml") for file in folder.rglob("Pulumi.*.yaml")], incomplete)


def profiles(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Profiles of `elson run`."""
    return _matching([file.stem for file in (environments.ROOT / "runners" / "profiles").glob("*.yaml")], incomplete)


def models(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Published names of the embedded bucket."""
    return _matching([file.stem for file in _bucket(context, "models").glob("registry/*.json")], incomplete)


def jobs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Jobs of the embedded bucket."""
    return _matching([file.parent.name for file in _bucket(context, "scratch").glob("jobs/*/state.json")], incomplete)


def _bucket(context: click.Context, name: str) -> Path:
    home = context.params.get("home") or ".elson"
    return Path(home) / "bucket" / name
