"""``elson train|merge|quantize``: the containers' entry points, and the steps of ``elson run``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from runners import log
from runners.errors import UserError


def stage_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--spec`` and ``--work``."""
    command = click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder for downloads and results; may be lost.")(command)
    return click.option("--spec", "spec_uri", required=True, help="The resolved spec: gs://… or a file.")(command)


@click.command()
@stage_options
def train(spec_uri: str, work: Path) -> None:
    """Train the adapter that a spec describes, and publish it. Goes on from the newest checkpoint.

    \b
    Examples:
      elson train --spec gs://PROJECT-elson-scratch/specs/0123456789abcdef.json --work /scratch
    """
    from runners import stages

    log.configure("train")
    work.mkdir(parents=True, exist_ok=True)
    click.echo(stages.train(stages.load_spec(spec_uri), work).name)


@click.command()
@stage_options
def merge(spec_uri: str, work: Path) -> None:
    """Merge the adapter into its base model, past the parity gate; the result stays in the work folder (and is published if the spec says so).

    Where the spec has a head, an EAGLE-3 head is trained on the merged model next, and published.

    \b
    Examples:
      elson merge --spec gs://PROJECT-elson-scratch/specs/0123456789abcdef.json --work /scratch
    """
    from runners import stages

    log.configure("merge")
    work.mkdir(parents=True, exist_ok=True)
    with _gates_shown():
        spec = stages.load_spec(spec_uri)
        click.echo(str(merged := stages.merge(spec, work)))
    stages.head(spec, work, merged)


@click.command()
@stage_options
def quantize(spec_uri: str, work: Path) -> None:
    """Quantize the merged model to 4 bits, past the quality gate, and publish it.

    \b
    Examples:
      elson quantize --spec gs://PROJECT-elson-scratch/specs/0123456789abcdef.json --work /scratch
    """
    from runners import stages

    log.configure("quantize")
    work.mkdir(parents=True, exist_ok=True)
    with _gates_shown():
        click.echo(stages.quantize(stages.load_spec(spec_uri), work).name)


@contextmanager
def _gates_shown() -> Iterator[None]:
    """A failed gate's numbers go to the log, so that they outlive the machine."""
    try:
        yield
    except UserError as error:
        for gate in getattr(error, "gates", ()):
            log.event("gate", name=gate.name, value=gate.value, rule=gate.rule, bound=gate.bound, passed=gate.passed)
        raise
