"""Caddy, a plan of the service, and the entry points of its images on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.run_plan import ServicePlan, plan_service
from runners import environments
from runners.planning.stacks import ResolvedStack, load
from runners.spec import Spec, parse
from tests.vm.test_gateway import caddy  # noqa: F401 - a fixture

ROOT = Path(__file__).resolve().parents[2]
KEY = "k" * 20 + "-_" + "K" * 20


def planned(spec: Spec | None = None, **changes: Any) -> ServicePlan:
    """The service of serve-l4-run, for a spec of one's own or with changes."""
    values = load("serve-l4-run").spec.model_dump(mode="json")
    if spec is not None:
        machine = values["machine"]
        values = spec.model_dump(mode="json")
        values["machine"] = machine
    for section, change in changes.items():
        values[section] = {**values[section], **change}
    return plan_service("serve-l4-run", ResolvedStack(parse(values), "serve-0123456789abcdef"))


@pytest.fixture
def clean_environment() -> dict[str, str]:
    """What a container has before its own variables: nothing of this machine's user."""
    kept = ("PATH", "STORAGE_EMULATOR_HOST", "OMP_NUM_THREADS")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"}


@pytest.fixture
def gateway_entry(caddy: Path, tmp_path: Path) -> list[str]:  # noqa: F811 - the fixture
    """The gateway's command."""
    return gateway_command(caddy, tmp_path / "bin")


def gateway_command(caddy: Path, folder: Path) -> list[str]:  # noqa: F811 - a path here
    """The gateway's command, with Caddy under the name that its image has, in a new folder."""
    folder.mkdir()
    (folder / "caddy").symlink_to(caddy)
    text = (ROOT / "images/gateway/Caddyfile").read_text()
    # The health checkers' site is a VM's; its fixed port may be taken on this machine.
    start = text.index("# Google's health checkers")
    (folder / "Caddyfile").write_text(text[:start] + text[text.index("{$ELSON_SITE} {") :])
    of_the_image = [f"PATH={folder}:{os.environ['PATH']}", f"XDG_DATA_HOME={folder}", "XDG_CONFIG_HOME=/proc/none", f"ELSON_CADDYFILE={folder / 'Caddyfile'}"]
    return ["/usr/bin/env", *of_the_image, "/bin/sh", str(ROOT / "images/gateway/start.sh")]


def server_entry() -> list[str]:
    """The serve image's entry point, in its environment here."""
    return [str(environments.python("serve")), "-m", "runners"]


def stand_in_server() -> list[str]:
    """A server with vLLM's paths that answers at once, behind the same watcher."""
    return [sys.executable, str(Path(__file__).with_name("quick_server.py"))]
