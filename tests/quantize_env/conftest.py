"""A tiny merged model with loud channels, and a dataset, made once."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from runners import spec as declared
from runners.local.base_model import TEXT, make_tiny
from runners.spec import Spec


@pytest.fixture(scope="session")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("merged") / "tiny")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, chance = tmp_path_factory.mktemp("data"), random.Random(0)
    words = TEXT.split()
    for split, count in (("train", 40), ("validation", 8)):
        lines = [
            {"id": f"{split}-{n}", "question": " ".join(chance.choices(words, k=8)), "answer": " ".join(chance.choices(words, k=chance.randint(10, 60)))}
            for n in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="session")
def spec() -> Spec:
    small = {"group_size": 64, "calibration_tokens": 1024, "calibration_sequence_tokens": 128, "validation_examples": 4}
    return declared.parse({"quantize": small, "train": {"max_tokens": 1024}})
