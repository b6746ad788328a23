"""``--keep-serving`` ends in order at whatever instant the user interrupts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runners import log
from runners.local import measure


@pytest.mark.parametrize("instant", ["the key is written", "the line is written", "it serves"])
def test_an_interrupt_ends_it_in_order(instant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line that says where it serves invites a Ctrl-C before the call that wrote it returns."""
    said: list[str] = []

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def event(message: str, **_: object) -> None:
        said.append(message)
        if instant == "the line is written" and message.startswith("serving at"):
            interrupt()

    monkeypatch.setattr(log, "event", event)
    if instant == "the key is written":
        monkeypatch.setattr(Path, "write_text", interrupt)
    job: Any = SimpleNamespace(home=tmp_path, spec=SimpleNamespace(serve=SimpleNamespace(served_model_name="elson")))
    server = subprocess.Popen([sys.executable, "-c", "pass"])
    if instant == "it serves":
        server.wait()
        monkeypatch.setattr(server, "wait", interrupt)
    measure._keep(job, "http://127.0.0.1:1", "a-key", server)
    assert said[-1] == "stopping the server"
    assert not (tmp_path / "api-key").exists()
