"""``elson base``: the models that are fine-tuned."""

from __future__ import annotations

from pathlib import Path

import click

from runners import log, stages
from runners.artifacts import registry
from runners.commands import places
from runners.commands.cli import CommandGroup
from runners.commands.places import Place, place_options
from runners.errors import UserError


@click.group(cls=CommandGroup)
def base() -> None:
    """Make a small base model here, or publish one that you have.

    \b
    Examples:
      elson base make smollm2 --out ./smollm2
      elson base publish elson-finance-trading-14b-final --from ./my-14b
      elson base publish qwen2.5-14b-instruct --from hf:Qwen/Qwen2.5-14B-Instruct@COMMIT
    """


@base.command()
@click.argument("kind", type=click.Choice(["smollm2", "tiny"]))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write; must not be there yet.")
def make(kind: str, out: Path) -> None:
    """Make a base model from what is installed: SmolLM2-135M-Instruct, or a tiny random Qwen2 for tests. Needs the train environment.

    \b
    Examples:
      .elson/envs/train/bin/python -m runners base make tiny --out ./tiny
    """
    from runners.local import base_model

    log.configure("base")
    if out.exists():
        raise UserError(f"{out} is there already", "a folder that is not there", "pass another --out, or delete it")
    {"smollm2": base_model.make_smollm2, "tiny": base_model.make_tiny}[kind](out)
    click.echo(str(out))


@base.command()
@click.argument("name")
@click.option("--from", "source", required=True, help="DIR, gs://BUCKET/FOLDER, or hf:OWNER/NAME@COMMIT: config, tokenizer, weights in safetensors.")
@click.option("--in-cloud", is_flag=True, help="Let a small job in the cloud move the bytes (hf: only).")
@click.option("--region", default="us-central1", show_default=True, help="Where that job runs.")
@click.option("--dry-run", is_flag=True, help="With --in-cloud: print the call and do nothing.")
@place_options
def publish(name: str, source: str, in_cloud: bool, region: str, dry_run: bool, place: Place) -> None:
    """Publish a model as the base model NAME: checked for what training needs, verified, its manifest last.

    A model from a hub goes shard by shard from there into the bucket: it needs no disk, and goes on where it stopped. Its licence is kept beside it.

    \b
    Examples:
      elson base publish elson-finance-trading-14b-final --from ./my-14b
      elson base publish qwen2.5-14b-instruct --from hf:Qwen/Qwen2.5-14B-Instruct@COMMIT
      elson base publish qwen2.5-14b-instruct --from hf:Qwen/Qwen2.5-14B-Instruct@COMMIT --in-cloud
      elson base publish elson-finance-trading-14b-final --from gs://my-bucket/my-14b
    """
    from runners.artifacts import bucket_source, hub

    log.configure("base")
    if in_cloud:
        _publish_in_cloud(name, source, region, dry_run, place)
        return
    if not source.startswith(("hf:", "gs://")):
        _must_be_a_model(Path(source))
    with place.open() as buckets:
        if source.startswith("hf:"):
            entry = hub.publish(buckets, name, source)
        elif source.startswith("gs://"):
            entry = bucket_source.publish(buckets, name, source)
        else:
            entry = stages.publish_base(buckets, Path(source), name)
    click.echo(f"{entry.name} {entry.id}")


def _publish_in_cloud(name: str, source: str, region: str, dry_run: bool, place: Place) -> None:
    import shlex

    from runners.cloud import base_job

    found, project = places.resolve(place.models, place.scratch, place.stack)
    if place.home or not project:
        raise UserError("no project is set", "the project in which the job runs", "export GOOGLE_CLOUD_PROJECT=my-project, without --local")
    if dry_run:
        click.echo(shlex.join(base_job.command(name, source, found, project, region)))
        return
    with place.open() as buckets:
        base_job.submit(name, source, buckets, project, region)
        entry = registry.usable(buckets, name)
    click.echo(f"{entry.name} {entry.id}")


def _must_be_a_model(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}", "a model folder, gs://BUCKET/FOLDER or hf:OWNER/NAME@COMMIT", "pass another --from")
    for needed in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        if not (folder / needed).exists():
            raise UserError(f"{folder} has no {needed}", "a model folder as transformers saves it", "save_pretrained of the model and of its tokenizer")
    if not list(folder.glob("*.safetensors")):
        raise UserError(f"{folder} has no *.safetensors", "weights in safetensors", "model.save_pretrained(folder, safe_serialization=True)")
