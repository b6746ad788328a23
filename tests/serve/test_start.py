"""The phases of a start, the graph sizes, the loader's entry point; the real vLLM's side is in tests/cloud_run/test_real_server.py."""

from __future__ import annotations

import importlib.metadata
import io
import re
from pathlib import Path

import pytest

from runners import environments
from runners.artifacts import arrival
from runners.artifacts.record import MANIFEST
from runners.cloud_run.server import Start
from runners.errors import UserError
from runners.fields import SpeculationSpec
from runners.serving import loader, serve
from runners.serving.graphs import graph_sizes
from runners.serving.phases import _SAID, Phases
from runners.spec import ServeSpec
from runners.vm import decide

LINES = (
    ("(EngineCore pid=7) INFO 11-27 00:00:01 [default_loader.py:501] Loading weights took 5.00 seconds", 15.0),
    ("(EngineCore pid=7) INFO 11-27 00:00:02 [monitor.py:50] torch.compile took 20.50 s in total", 40.0),
    ("(EngineCore pid=7) INFO 11-27 00:00:03 [gpu_model_runner.py:6582] Graph capturing finished in 4 secs, took 0.50 GiB", 46.0),
    ("(EngineCore pid=7) INFO 11-27 00:00:04 [core.py:395] init engine (profile, create kv cache, warmup model) took 30.00 s (compilation: 20.50 s)", 48.0),
)


def test_phases_follow_the_lines_and_add_up() -> None:
    phases = Phases(began=2.0)
    assert phases.seconds() == {}
    for line, at in LINES:
        assert not phases.line(line, at), "lines of level INFO are read, not passed on"
    found = phases.seconds(ready_at=50.0)
    assert found == {"program": 8.0, "weights": 5.0, "compile": 20.5, "graphs": 4.0, "warm up": 5.5, "first completion": 2.0}
    assert list(found) == ["program", "weights", "compile", "graphs", "warm up", "first completion"]


@pytest.mark.parametrize("line", ["(APIServer pid=1) WARNING 11-27 x", "ERROR 11-27", "Traceback (most recent call last):", '{"message": "ours"}'])
def test_warnings_errors_and_our_own_lines_are_passed_on(line: str) -> None:
    assert Phases().line(line)


@pytest.mark.parametrize("line", ["INFO:     Started server process [1]", "(EngineCore pid=7) DEBUG 11-27", "INFO 11-27 a prompt"])
def test_talk_is_not(line: str) -> None:
    assert not Phases().line(line)


def test_vllm_still_says_what_is_read() -> None:
    """Each pattern, with its groups as printf's words, is in the sources of the locked vLLM."""
    root = environments.path("serve")
    if not root.exists():
        pytest.skip("no serve environment")
    package = next(root.glob("lib/python*/site-packages/vllm"))
    files = ("model_executor/model_loader/default_loader.py", "compilation/monitor.py", "v1/worker/gpu_model_runner.py", "v1/engine/core.py")
    text = " ".join(re.sub(r'"\s*\n\s*"', "", (package / file).read_text()) for file in files)
    said = {"weights": "Loading weights took %.2f seconds", "compile": "torch.compile took %.2f s in total", "graphs": "Graph capturing finished in %.0f secs"}
    said["engine"] = "init engine (profile, create kv cache, warmup model) took %.2f s"
    assert said.keys() == _SAID.keys()
    for name, words in said.items():
        assert words in text
        assert _SAID[name].search(words.replace("%.2f", "1.50").replace("%.0f", "3"))


def test_a_server_tells_its_phases_once_when_its_engine_is_up(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    text = "\n".join([line for line, _ in LINES] + ["WARNING 11-27 keep me", LINES[0][0], ""])
    Start(Phases(began=0.0)).follow(io.BytesIO(text.encode()))
    said = capfd.readouterr()
    assert (said.out + said.err).count("phases of the start") == 1
    assert "keep me" in said.err and "Loading weights" not in said.err


@pytest.mark.parametrize(
    ("sequences", "draft", "sizes"),
    [(1, 0, [1]), (4, 0, [1, 2, 4]), (32, 0, [1, 2, 4, 8, 16, 24, 32]), (10, 0, [1, 2, 4, 8, 10]), (4, 3, [4, 8, 16])],
)
def test_graphs_are_captured_for_the_steps_that_there_can_be(sequences: int, draft: int, sizes: list[int]) -> None:
    speculation = SpeculationSpec(draft_tokens=draft) if draft else None
    spec = ServeSpec(max_sequences=sequences, speculation=speculation)
    assert graph_sizes(spec) == sizes
    made = serve.vllm_arguments(spec, Path("/m"), device="cuda", quantized=True, port=1)
    at = made.index("--cudagraph-capture-sizes")
    assert made[at + 1 : at + 1 + len(sizes)] == list(map(str, sizes))
    eager = serve.vllm_arguments(spec.model_copy(update={"eager": True}), Path("/m"), device="cuda", quantized=True, port=1)
    assert "--enforce-eager" in eager and "--cudagraph-capture-sizes" not in eager


def test_the_entry_point_is_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(loader.install(tmp_path / "plugins")))
    (found,) = [one for one in importlib.metadata.entry_points(group="vllm.general_plugins") if one.name == "elson"]
    assert found.load() is loader.register
    assert "--load-format" not in serve.vllm_arguments(ServeSpec(), tmp_path, device="cuda", quantized=True, port=1)
    assert loader.LOAD_FORMAT in serve.vllm_arguments(ServeSpec(), tmp_path, device="cuda", quantized=True, port=1, arriving=True)


def test_the_loader_waits_for_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / arrival.ARRIVING).mkdir()
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            arrival.mark(tmp_path, "a.safetensors")

    monkeypatch.setattr(loader.time, "sleep", sleep)
    loader.wait_for(tmp_path, tmp_path / "a.safetensors")
    assert len(pauses) == 3
    loader.wait_for(Path("/"), Path("/b.safetensors"))


@pytest.mark.parametrize(("problem", "code"), [(None, None), (UserError("flipped", "right", "again"), 1), (OSError("no disk"), 1)])
def test_a_server_ends_when_its_weights_are_refused(problem: Exception | None, code: int | None, tmp_path: Path) -> None:
    import sys
    import threading

    from runners.cloud_run.server import Engine, look_after

    (tmp_path / MANIFEST).touch()  # all of it is here
    (tmp_path / arrival.ARRIVING).mkdir()
    found = arrival.Arrival("gs://m/m", tmp_path, None, {}, [], [])  # type: ignore[arg-type]
    found.problem, stopping = problem, threading.Event()
    if problem is None:
        threading.Timer(1.5, stopping.set).start()
    sleeping = [sys.executable, "-c", "import time; time.sleep(60)"]
    got = look_after([Engine(sleeping, {}, 1, "elson", Start(Phases(), found))], health=None, key="k", ready_timeout_s=30, stopping=stopping)
    assert got == (code or 0)


def test_a_vm_adds_its_own_phases_to_the_servers() -> None:
    marks = {"check": 12.0, "pull": 15.0, "image": 15.5, "container": 16.0, "engine": 70.0}
    server = {"program": 20.0, "weights": 10.0, "compile": 3.0, "warm up": 15.0}
    found = decide.start_phases(marks, server, 71.5)
    assert found == {"system": 12.0, "docker": 3.0, "image": 0.5, "container": 6.0, **server, "first completion": 1.5}
    assert sum(found.values()) == 71.0, "but for the half second between image and container"
    assert decide.start_phases({"check": 12.0}, {}, 30.0) == {"system": 12.0}
    assert decide.start_phases({}, {}, 30.0) == {}
