"""IDs by which things that are there already are taken over."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from engine import Run

from runners.cloud.taken import taken
from tests.cloud import provided

from .conftest import PROJECT

STACKS = ("foundation", "serve-l4", "serve-l4-run", "serve-l4-spot", "train-h100", "train-run")


@pytest.mark.parametrize("stack", STACKS)
def test_every_type_of_the_programs_has_the_ID_of_its_provider_or_none(stack: str, runs: Callable[[str, bool], Run]) -> None:
    for resource in runs(stack, False).custom:
        ours = taken(resource.urn, "", resource.inputs, PROJECT)
        assert (ours.id if ours else "") == provided.cloud_id(resource.type, resource.inputs), resource.key
