"""``elson load``: how a running server behaves under load."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import click

from runners.commands import completion
from runners.commands.cli import print_json
from runners.errors import UserError


@click.command()
@click.option("--api-url", required=True, help="Address of the server.")
@click.option("--model", default="elson", show_default=True, help="The name it serves under.")
@click.option("--tokenizer", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True, help="Folder of the served model or its base.")
@click.option("--concurrency", "levels", default="1,2,4,8,16", show_default=True, help="Levels, separated by commas.")
@click.option("--requests", type=click.IntRange(1, 10_000), default=32, show_default=True, help="Requests a level.")
@click.option("-s", "--stack", shell_complete=completion.stacks, help="Draw the floor of this stack's card beside what was measured.")
@click.option("--api-key-env", default="ELSON_API_KEY", show_default=True, help="Variable that holds the key.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(".elson/load"), show_default=True, help="Folder of results and load.html.")
@click.option("--json", "as_json", is_flag=True, help="Print the levels as data.")
def load(api_url: str, model: str, tokenizer: Path, levels: str, requests: int, stack: str | None, api_key_env: str, out: Path, as_json: bool) -> None:
    """Throughput and latency of a server against concurrency, by vLLM's `bench serve`. Spends the server's time: levels x requests.

    \b
    Examples:
      elson load --api-url http://127.0.0.1:8000 --tokenizer .elson/work/local/base
      elson load --api-url http://127.0.0.1:8000 --tokenizer ./base --concurrency 1,8,32 -s serve-l4
    """
    from runners.evaluation.load import LoadRequest, measure, write_page

    wanted = _levels(levels)
    if not (tokenizer / "tokenizer.json").is_file():
        raise UserError(f"{tokenizer} holds no tokenizer.json", "the folder of the served model or of its base", "elson load --tokenizer FOLDER")
    request = LoadRequest(api_url, model, tokenizer.resolve(), wanted, requests)
    floor = _floor_ms(stack, request.answer_tokens) if stack else None
    found = measure(request, os.environ.get(api_key_env, "none"), out.resolve())
    write_page(out / "load.html", request, found, floor)
    if as_json:
        print_json([asdict(level) for level in found])
        return
    click.echo("concurrency  tokens/s  first token ms  answer ms  p99 ms  lost")
    for level in found:
        click.echo(
            f"{level.concurrency:11} {level.tokens_per_s:9.1f} {level.first_token_ms:15.0f} {level.answer_ms:10.0f} {level.answer_p99_ms:7.0f} {level.failed:5}"
        )
    click.echo(str(out / "load.html"))


def _levels(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdigit() and 0 < int(part) <= 4096 for part in parts):
        raise UserError(f"--concurrency {text} is no list of levels", "whole numbers from 1, separated by commas", "--concurrency 1,4,16")
    return tuple(sorted({int(part) for part in parts}))


def _floor_ms(stack: str, tokens: int) -> float:
    from runners.planning import stacks
    from runners.planning.machines import load_prices
    from runners.planning.plan import make_plan

    found = stacks.load(stack)
    serving = make_plan(stack, found.spec, load_prices()).serving
    if serving is None:
        raise UserError(f"{stack} serves nothing", "a serve stack", "pass one to -s, or leave it out")
    return serving.floor_step_ms * tokens
