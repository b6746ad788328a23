"""The walk-through of infra/README.md, line by line and in its order, with the project's own buckets: no option, no environment but the project."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from runners.artifacts import layout, local_bucket, registry, storage
from runners.planning import stacks

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "a-project"
BUCKETS = stacks.buckets_of(PROJECT)
#: Lines that need an account's other services: each has tests of its own (the stand-in engine, the doctor's, the key's and the images'; tests/cloud).
ELSEWHERE = (
    "make ",
    "export ",
    "gcloud ",
    "pulumi ",
    "for stack in",
    "curl ",
    "-d ",
    "elson doctor",
    "elson key rotate",
    "elson images ",
    "elson init",
    "elson up ",
    "elson down ",
    "elson models compiled ",
)


BLOCKS: list[tuple[str, str]] = re.findall(r"(?ms)^```(\w*)\n(.*?)^```", (ROOT / "infra" / "README.md").read_text())


def lines() -> list[str]:
    """Every command of the page's code blocks, without comments."""
    found = [re.sub(r"\s+#.*$", "", line).strip() for language, block in BLOCKS if language != "yaml" for line in block.splitlines()]
    return [line for line in found if line]


#: The stack whose file a block of settings is part of, by the block's one key.
STACK_OF = {"machine": "train-h100", "serve": "serve-l4", "foundation": "foundation"}
SETTINGS = [yaml.safe_load(block) for language, block in BLOCKS if language == "yaml"]


@pytest.mark.parametrize("values", SETTINGS, ids=[" ".join(values) for values in SETTINGS])
def test_settings_are_settings(values: dict[str, Any]) -> None:
    """A block of YAML, laid over a stack's tracked file, is that stack with something changed."""
    (part,) = values
    stack = STACK_OF[part]
    before = stacks.tracked(stack) or {}
    with_it = stacks.from_config(stack, PROJECT, stacks.layered(before, values), "infra/README.md")
    assert with_it.spec != stacks.from_config(stack, PROJECT, before, "its file").spec


def test_every_line_is_run_here_or_known_to_be_tested_elsewhere() -> None:
    assert not [line for line in lines() if not line.startswith((*ELSEWHERE, "elson data ", "elson base ", "elson plan ", "elson status", "elson models "))]
    order = [line.split()[1] for line in lines() if line.startswith("elson ") and not line.startswith(ELSEWHERE)]
    assert order[:3] == ["data", "base", "plan"] and "models" in order


def make_model(folder: Path) -> None:
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")


def test_the_walk_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("GOOGLE_", "STORAGE_", "ELSON_"))}
    make_model(tmp_path / "my-14b")
    ran = []
    with local_bucket.running(tmp_path, BUCKETS) as url:
        clean |= {"GOOGLE_CLOUD_PROJECT": PROJECT, "STORAGE_EMULATOR_HOST": url, "PYTHONPATH": str(ROOT)}
        (tmp_path / "data").symlink_to(ROOT / "data")
        for line in lines():
            if line.startswith(ELSEWHERE):
                if line == "pulumi up -s train-h100":  # what the machine leaves behind
                    make_model(tmp_path / "awq")
                    registry.publish(BUCKETS, tmp_path / "awq", name="elson-finance-trading-wealth-14b-q4-v2", stage_id="qdora-1", kind="qdora", format="awq")
                continue
            words = ["./my-14b" if word.startswith("hf:") else word for word in shlex.split(line)[1:]]
            done = subprocess.run([sys.executable, "-m", "runners", *words], cwd=tmp_path, env=clean, capture_output=True, text=True)
            assert done.returncode == 0, f"{line}\n{done.stderr}"
            ran.append(" ".join(words[:2]))
        assert {"data build", "base publish", "models promote"} <= set(ran)
        live = registry.production(BUCKETS)
        assert live and live.name == "elson-finance-trading-wealth-14b-q4-v2"
        assert registry.usable(BUCKETS, "elson-finance-trading-14b-final").kind == "base"
        assert storage.read(layout.registry(BUCKETS, "elson-corpus"))
