"""``elson images``: pin the bases, build the containers, bake a boot image; say what they hold and whether any of it is known to be vulnerable."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import click

from runners import log
from runners.cloud.images import ROOT, bases, build_command, write_digests
from runners.commands import completion
from runners.commands.cli import AS_JSON, DRY_RUN, CommandGroup, print_json
from runners.errors import UserError
from runners.pipeline import IMAGES

_PROJECT = click.option("--project", envvar="GOOGLE_CLOUD_PROJECT", required=True, show_envvar=True, help="Google Cloud project.")


@click.group(cls=CommandGroup)
def images() -> None:
    """Pin base images, build the containers, bake a boot image; list and audit what they hold.

    \b
    Examples:
      elson images resolve
      elson images build --project my-project
      elson images bake -s train-h100 --project my-project --zone us-central1-a
      elson images audit
    """


@images.command()
@click.argument("names", nargs=-1)
@DRY_RUN
@AS_JSON
def resolve(names: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Look up the digest behind each base image's tag in its registry, and write it to images/bases.yaml.

    \b
    Examples:
      elson images resolve
      elson images resolve caddy
    """
    from runners.cloud.images import resolve

    known = bases()
    if unknown := set(names) - set(known):
        raise UserError(f"there is no base image {', '.join(sorted(unknown))}", f"one of {', '.join(known)}", "elson images resolve --help")
    if dry_run:
        found: dict[str, Any] = {name: f"{base['image']}:{base['tag']}" for name, base in known.items() if not names or name in names}
    else:
        found = resolve(names=names)
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        click.echo(f"{name:8} {'would look up ' if dry_run else ''}{value}")


@images.command()
@click.argument("stages", nargs=-1, type=click.Choice(IMAGES))
@_PROJECT
@click.option("--region", default="us-central1", show_default=True, help="Where the registry is and the builds run.")
@DRY_RUN
@AS_JSON
def build(stages: tuple[str, ...], project: str, region: str, dry_run: bool, as_json: bool) -> None:
    """Build the containers with Cloud Build and write their digests into your stack files (infra/stacks/mine). What is built already is found, not built again.

    \b
    Examples:
      elson images build --project my-project             all four, about 25 minutes and a dollar the first time
      elson images build gateway --project my-project
      elson images build --project my-project --dry-run
    """
    from runners.cloud.images import build

    wanted = stages or IMAGES
    commit = _commit()
    if dry_run:
        calls = {stage: build_command(stage, project, region, commit)[1] for stage in wanted}
        _print_calls(calls, as_json)
        return
    found = {stage: build(stage, project, region, commit) for stage in wanted}
    changed = write_digests(found)
    if as_json:
        print_json({"images": found, "stack_files": [str(file) for file in changed]})
        return
    for stage, image in found.items():
        click.echo(f"{stage:8} {image}")
    for file in changed:
        log.say(f"written to {file}", err=True)


@images.command()
@click.option("-s", "--stack", required=True, shell_complete=completion.stacks, help="The stack whose containers are baked in.")
@_PROJECT
@click.option("--zone", default="us-central1-a", show_default=True, help="Where the small VM runs meanwhile.")
@click.option("--weights", is_flag=True, help="A server's (first) model and compiled code too. Slower than the bucket unless it is far away: see the plan.")
@DRY_RUN
@AS_JSON
def bake(stack: str, project: str, zone: str, weights: bool, dry_run: bool, as_json: bool) -> None:
    """Make a boot image that holds docker, the GPU toolkit and a stack's containers. Saves minutes at every boot; costs cents.

    \b
    Examples:
      elson images bake -s train-h100 --project my-project --dry-run
      elson images bake -s serve-l4 --project my-project --zone us-central1-a
      elson images bake -s serve-l4 --project my-project --weights
    """
    from runners import stages
    from runners.cloud.bake import Weights, bake, plan, with_weights
    from runners.planning import stacks

    spec = stacks.load(stack).spec
    role = spec.machine.role if spec.machine else "train"
    held = with_weights(stack, spec) if weights else None
    digest = held.serve.model_manifest if held else None
    if dry_run:
        calls = plan(spec, role, project, zone, Path("METADATA"), digest)
        _print_calls({"create": calls.create, "wait": calls.poll, "stop": calls.stop, "image": calls.make, "cleanup": calls.cleanup}, as_json)
        return
    name = bake(spec, role, project, zone, weights=Weights(stages.save_spec(held), digest) if held and digest else None)
    # An image without weights takes the place of one with them, also in what the plan believes.
    holds = {"baked_model": digest} if digest or (spec.machine and spec.machine.baked_model) else {}
    file = stacks.remember(stack, {"elson:spec": {"machine": {"image": name, "image_is_baked": True, **holds}}})
    if as_json:
        print_json({"image": name})
        return
    click.echo(name)
    log.say(f"written to {file}; now: pulumi up -s {stack}" if file else f"{stack} boots it already", err=True)


@images.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("sbom"), show_default=True, help="Folder for the bills.")
def sbom(out: Path) -> None:
    """Write a bill of materials (CycloneDX 1.6) for each lock and each image: packages, versions, hashes, bases, the commit.

    \b
    Examples:
      elson images sbom
      elson images sbom --out release/sbom
    """
    from runners.cloud.release import bills, write
    from runners.planning import stacks

    built = {name: image for stack in stacks.names() for name, image in stacks.load(stack).spec.environments if image}
    for file in write(out, bills(digests=built)):
        click.echo(file)


@images.command()
@click.option("--ignore", multiple=True, metavar="ID", help="A finding that was looked at and accepted.")
@click.option("--url", envvar="ELSON_OSV_URL", show_envvar=True, help="Another OSV service.  [default: https://api.osv.dev/v1/query]")
@AS_JSON
def audit(ignore: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """Ask the OSV database (by pip-audit) about every package of every lock. Ends with 1 when a vulnerability is known, with 75 when nobody answers.

    \b
    Examples:
      elson images audit
      elson images audit --ignore GHSA-xxxx-xxxx-xxxx --json
    """
    from runners.cloud.release import audit

    asked, found = audit(ignore=ignore, url=url)
    if as_json:
        print_json({"packages": asked, "found": found})
    for row in () if as_json else found:
        click.echo(f"{row['package']} {row['version']}  {row['id']}  fixed in {row['fixed in'] or 'no version'}  ({row['in']})")
    log.say(f"{asked} packages, {len(found)} known vulnerabilities", err=True)
    if found:
        raise click.exceptions.Exit(1)


def _print_calls(calls: dict[str, list[str]], as_json: bool) -> None:
    if as_json:
        print_json(calls)
        return
    for command in calls.values():
        click.echo(shlex.join(command))


def _commit() -> str:
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    dirty = subprocess.run([*git, "status", "--porcelain", "runners", "images"], capture_output=True, text=True, check=False).stdout.strip()
    return f"{commit}-dirty" if dirty else commit
