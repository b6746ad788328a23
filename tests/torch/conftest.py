"""A tiny random base model and a small dataset, made once."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runners import spec as declared
from runners.spec import Spec

TOPICS = ("a budget", "an emergency fund", "a bond", "a mortgage", "a Roth account", "the Sharpe ratio", "a fiduciary", "a trust", "duration", "insurance")


def rows(count: int, prefix: str) -> list[dict[str, Any]]:
    """Q&A pairs of different lengths, some with a history."""
    chance = random.Random(prefix)
    found = []
    for number in range(count):
        topic, years = chance.choice(TOPICS), chance.randint(1, 30)
        answer = f"{topic} after {years} years: " + "interest compounds, and the balance grows. " * chance.randint(1, 6)
        history = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Ask me."}] if number % 5 == 0 else []
        found.append({"id": f"{prefix}-{number:03d}", "question": f"What is {topic} over {years} years?", "answer": answer, "history": history})
    return found


def write_dataset(folder: Path, train: list[dict[str, Any]], validation: list[dict[str, Any]]) -> Path:
    """A dataset folder of these rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, split in (("train", train), ("validation", validation)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in split))
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Qwen2."""
    from runners.local.base_model import make_tiny

    return make_tiny(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="session")
def make_dataset() -> Callable[[Path, int, int], Path]:
    """A dataset folder with so many training and validation pairs."""
    return lambda folder, train, validation: write_dataset(folder, rows(train, "train"), rows(validation, "validation"))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 training and 8 validation pairs."""
    return write_dataset(tmp_path_factory.mktemp("data"), rows(40, "train"), rows(8, "validation"))


@pytest.fixture(scope="session")
def make_spec() -> Callable[..., Spec]:
    """A spec for the tiny model; keyword arguments go into its train section, or name a section."""

    def make(**changes: Any) -> Spec:
        sections = {name: changes.pop(name) for name in ("merge", "quantize") if name in changes}
        small = {"rank": 4, "alpha": 8, "epochs": 2, "batch_examples": 8, "learning_rate": 2e-3, "precision": "fp32", "max_tokens": 512, "minimum_steps": 1}
        return declared.parse({"train": small | {"micro_batch_tokens": 512} | changes, "base_model": {"name": "tiny"}, **sections})

    return make
