"""``elson base``: the models that are fine-tuned."""

from __future__ import annotations

from pathlib import Path

import click

from runners import log, stages
from runners.commands.places import Place, place_options
from runners.errors import UserError


@click.group()
def base() -> None:
    """Make a small base model here, or publish one that you have.

    \b
    Examples:
      elson base make smollm2 --out ./smollm2
      elson base publish elson-finance-trading-14b-final --from ./my-14b
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
@click.option(
    "--from",
    "folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Folder of the model: config, safetensors, tokenizer.",
)
@place_options
def publish(name: str, folder: Path, place: Place) -> None:
    """Publish a model's FOLDER as the base model NAME: checked for what training needs, uploaded, its manifest last.

    \b
    Examples:
      elson base publish elson-finance-trading-14b-final --from ./my-14b
    """
    log.configure("base")
    for wanted in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        if not (folder / wanted).exists():
            raise UserError(f"{folder} has no {wanted}", "a model folder as transformers saves it", "save_pretrained of the model and of its tokenizer")
    if not list(folder.glob("*.safetensors")):
        raise UserError(f"{folder} has no *.safetensors", "weights in safetensors", "model.save_pretrained(folder, safe_serialization=True)")
    with place.open() as buckets:
        entry = stages.publish_base(buckets, folder, name)
    click.echo(f"{entry.name} {entry.id}")
