"""``elson serve``: the serving container's entry point."""

from __future__ import annotations

from pathlib import Path

import click

from runners import log
from runners.commands.stages import stage_options


@click.command()
@click.option("--port", type=int, help="Port on loopback; left out, the spec's.")
@click.option("--second-port", type=int, help="Port on loopback of the second model, where the spec has one.")
@click.option("--ready-port", type=int, help="Stay beside vLLM: /health on this loopback port, streams finished at SIGTERM (Cloud Run).")
@click.option("--bring", "brings", is_flag=True, help="Bring the (first) model and compiled code into the work folder, verified, and end: for a boot image.")
@stage_options
def serve(spec_uri: str, work: Path, port: int | None, second_port: int | None, ready_port: int | None, brings: bool) -> None:
    """Serve the spec's model, or its two, with vLLM on loopback; the key comes from VLLM_API_KEY or the file ELSON_API_KEY_FILE names.

    \b
    Examples:
      ELSON_API_KEY_FILE=/run/key elson serve --spec gs://PROJECT-elson-scratch/specs/0123456789abcdef.json --work /scratch
    """
    from runners import stages
    from runners.serving.serve import bring, execute

    log.configure("serve")
    work.mkdir(parents=True, exist_ok=True)
    spec = stages.load_spec(spec_uri)
    if brings:
        bring(spec, work)
        return
    execute(spec, work, [port or spec.serve.port, *([second_port] if second_port else [])], ready_port)
