"""How a stage's container is started, watched and stopped."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from runners import log, outside
from runners.errors import UserError
from runners.pipeline import image_of
from runners.vm import routes
from runners.vm.facts import Facts

RUN = Path("/run/elson")
WORK = Path("/var/lib/elson/work")
#: The user every image runs as.
CONTAINER_USER = 10001
#: Where the gateway tells the health checkers whether completions come back (images/gateway/Caddyfile).
HEALTH_PORT = 8081
#: Seconds a training gets to write its checkpoint: what a preemption notice of 120 s leaves after noticing and uploading. The gateway lets the answers on their
#: way end, within the 30 s that a VM has after its power button. The others have nothing to save: vLLM breaks off what it is answering, and a server that is
#: still loading ignores the signal and would only hold up the VM's end.
STOP_S = {"train": 100, "gateway": 25}
OTHERS_STOP_S = 20


def name(stage: str) -> str:
    """The container's name, so that a watcher can stop it."""
    return f"elson-{stage}"


def run_arguments(stage: str, facts: Facts, spec: dict[str, Any]) -> list[str]:
    """``docker run …`` of a stage: pinned image, no capabilities, host network (metadata server, loopback between vLLM and the gateway), GPUs by CDI."""
    common = [
        "docker",
        "run",
        "--rm",
        "--name",
        name(stage),
        "--network",
        "host",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
        "--user",
        str(CONTAINER_USER),
    ]
    # The journal has every line already; Docker's own copy would fill the disk of a server that runs for weeks.
    common += ["--log-driver", "none", "--stop-timeout", str(STOP_S.get(stage, OTHERS_STOP_S))]
    if stage == "gateway":
        serve = spec["serve"]
        if serve["domain"] and not outside.is_host_name(serve["domain"]):
            raise UserError(f"serve.domain is {serve['domain'][:100]!r}", "a host name like api.example.org", "run `pulumi up` on this stack again")
        site = serve["domain"] or f":{int(serve['port'])}"
        environment = {"ELSON_SITE": site, **routes.gateway(serve)}
        mounts = [f"{RUN / 'secrets'}:/run/secrets/elson:ro", f"{RUN / 'health'}:/run/health:ro", "/var/lib/elson/gateway:/data"]
        return [*common, "--read-only", *_each("--env", environment), *_volumes(mounts), facts.images[stage]]
    environment = {"HOME": "/scratch", "ELSON_JOB": facts.job_id}
    mounts = [f"{WORK}:/scratch"]
    machine = ["--device", "nvidia.com/gpu=all", "--ipc", "host", "--ulimit", "memlock=-1"]
    command = [stage, "--spec", facts.spec_uri, "--work", "/scratch"]
    if stage == "serve":
        command += routes.serve_ports(spec["serve"])
        environment["ELSON_API_KEY_FILE"] = "/run/secrets/elson/key"
        mounts.append(f"{RUN / 'vllm'}:/run/secrets/elson:ro")
    return [*common, *machine, *_each("--env", environment), *_volumes(mounts), facts.images[image_of(stage)], *command]


def _each(option: str, values: dict[str, str]) -> list[str]:
    return [part for key, value in values.items() for part in (option, f"{key}={value}")]


def _volumes(mounts: list[str]) -> list[str]:
    return [part for mount in mounts for part in ("--volume", mount)]


def run(stage: str, arguments: list[str], on_line: Callable[[str], None], on_stop: Callable[[], None]) -> int:
    """Run a container to its end, each of its lines to stdout (the journal) and to ``on_line``; returns its exit code.

    A SIGTERM (the VM goes down, or a person stops the unit) calls ``on_stop`` and becomes ``docker stop``, so the runner can save its work.
    """
    subprocess.run(["docker", "rm", "--force", name(stage)], capture_output=True, check=False)  # left by a boot that was cut off

    def terminate(_signal: int, _frame: FrameType | None) -> None:
        on_stop()
        threading.Thread(target=stop, args=(stage,)).start()

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as process:
            assert process.stdout is not None  # noqa: S101 - a pipe was asked for
            for line in process.stdout:
                print(line, end="", flush=True)  # noqa: T201 - the unit's stdout is the journal
                on_line(line)
    finally:
        signal.signal(signal.SIGTERM, before)
    return process.returncode


def stop(stage: str, at_most_s: int = 1000) -> None:
    """Ask a container to end, and wait; kill it when its time is up. A container that is not there is no error."""
    seconds = min(at_most_s, STOP_S.get(stage, OTHERS_STOP_S))
    log.event("stopping the container", stage=stage, seconds=seconds)
    subprocess.run(["docker", "stop", "--time", str(seconds), name(stage)], capture_output=True, check=False)
