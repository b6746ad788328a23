"""Each stack is what its inventory says; a change that is meant is written down by ``.venv/bin/python tests/infra/inventory.py``."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import yaml
from engine import Run
from inventory import FOLDER, STACKS, of


@pytest.mark.parametrize("stack", STACKS)
def test_a_stack_is_what_its_inventory_says(stack: str, runs: Callable[[str, bool], Run]) -> None:
    expected = yaml.safe_load((FOLDER / f"{stack}.yaml").read_text())
    assert of(runs(stack, False)) == expected, "if the change is meant: .venv/bin/python tests/infra/inventory.py, then look at the diff"
