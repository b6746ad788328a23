"""One card and one table for the whole suite; the table is printed at the end, and written where ELSON_GPU_TABLE says."""

from __future__ import annotations

import os

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # as training sets it
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported: nothing here may wait for a network

from pathlib import Path

import pytest
import torch
import transformers

from tests.gpu.card import Card, find_card
from tests.gpu.figures import Table

_TABLE = Table(file=Path(place) if (place := os.environ.get("ELSON_GPU_TABLE")) else None)


@pytest.fixture(scope="session")
def card() -> Card:
    """The device under test."""
    found = find_card()
    shape = found.shape
    _TABLE.title = (
        f"{found.name}, {found.total_bytes / 2**30:.1f} GiB; torch {torch.__version__}, transformers {transformers.__version__}; "
        f"{shape.layers} layers of {shape.hidden} x {shape.intermediate}, {shape.parameters / 1e9:.2f} B parameters"
    )
    return found


@pytest.fixture(scope="session")
def table() -> Table:
    """Where tests put what they measure."""
    return _TABLE


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table below the results."""
    if not _TABLE.figures:
        return
    terminalreporter.write_line(_TABLE.markdown())
