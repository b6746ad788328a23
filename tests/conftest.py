"""What every test may use: an embedded bucket of its own, and the folder of the user's own files where it is there."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runners.artifacts import local_bucket
from runners.spec import BucketSpec

if TYPE_CHECKING:
    from tests.browser import Browser

# Tests read the log as data, in CI too, where a person would get the error that ends a command as lines.
os.environ.setdefault("ELSON_LOG", "json")
ROOT = Path(__file__).resolve().parent.parent

#: Every embedded bucket of the tests, of their child processes too, enforces what the platform enforces.
os.environ["ELSON_BUCKET_SERVER"] = shlex.join([sys.executable, str(ROOT / "tests" / "storage_proxy.py")])


@pytest.fixture
def buckets(tmp_path: Path) -> Iterator[BucketSpec]:
    """Two empty buckets in a real storage emulator."""
    pair = BucketSpec(models="gs://models", scratch="gs://scratch")
    with local_bucket.running(tmp_path, pair):
        yield pair


@pytest.fixture(scope="session")
def reference() -> Path:
    """The user's own files (see the README); tests that need them are skipped, and say so, where they are not."""
    folder = Path(os.environ.get("ELSON_REFERENCE", ROOT.parent / "shared" / "reference"))
    if not folder.is_dir():
        pytest.skip(f"the user's reference files are not at {folder} (set ELSON_REFERENCE)")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real browser, shared by a file's tests."""
    from tests import browser as real

    real.need()
    with real.Browser() as opened:
        yield opened
