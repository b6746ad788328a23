"""``elson new``: a project of one's own, from an installed package or from a checkout."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from runners import log
from runners.environments import ROOT
from runners.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]
_IGNORED = shutil.ignore_patterns("__pycache__", "build", "*.egg-info", "project", "mine")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def new(folder: Path) -> None:
    """Write a project to FOLDER: the Pulumi program and its stacks, the images and locks, the data with its sources, and the code they run.

    A project is self-contained: what a stage makes is named by the code and locks beside it, so they stay as they are until you change them.

    \b
    Examples:
      elson new my-model && cd my-model && make setup
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already", "a folder that is not there, or is empty", "pass another FOLDER")
    source = ROOT if (ROOT / "images").is_dir() else PACKAGE / "project"
    for name in (PACKAGE / "commands" / "project_files.txt").read_text().split():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            shutil.copytree(source / name, target, ignore=_IGNORED)
        else:
            shutil.copy(source / name, target)
    shutil.copytree(PACKAGE, folder / "runners", ignore=_IGNORED)
    click.echo(str(folder))
    log.say(
        f"next:  cd {folder} && make setup && export GOOGLE_CLOUD_PROJECT=my-project\n"
        "then:  data/README.md (your own data), infra/README.md (the cloud, step by step); `make demo` runs everything here first",
        err=True,
    )
