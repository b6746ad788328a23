"""peft's own DoRA tests, from the source distribution of the installed version: with stock peft, then with this project's layer in its place.

    PYTHONPATH=. HF_HUB_OFFLINE=1 python tests/benchmarks/training_peft_tests.py [--folder FOLDER]

Needs a Python with torch, transformers, peft, pytest and what peft's tests import: diffusers, datasets, scipy, parameterized, attrs. Ends with 1 when a
test that passes with stock peft does not with this layer, or when the layer was never used. Tests that want a card or the hub are counted as they end.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
#: Where a run of pytest puts its results; set in that process only, where this file is a plugin.
RESULTS = "ELSON_PEFT_RESULTS"
#: These need a card from their first line to their last.
ON_A_CARD = ("test_common_gpu.py", "test_gpu_examples.py")


def fetch(folder: Path) -> list[Path]:
    """peft's test files that name DoRA, in a package that is not called as this project's tests are."""
    if not (folder / "peft_tests").exists():
        download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "peft", "-d", str(folder)]
        subprocess.run([*download, f"peft=={version('peft')}"], check=True)
        with tarfile.open(next(folder.glob("peft-*.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")
        next(folder.glob("peft-*/tests")).rename(folder / "peft_tests")
        (folder / "peft_tests" / "__init__.py").touch()
    return sorted(file for file in (folder / "peft_tests").glob("test_*.py") if "dora" in file.read_text().lower() and file.name not in ON_A_CARD)


def run(folder: Path, files: list[Path], kind: str) -> dict[str, Any]:
    """Outcome of every test, and in how many this project's layer computed something."""
    results = folder / f"{kind}.json"
    environment = {**os.environ, RESULTS: str(results), "ELSON_PEFT_LAYER": kind, "PYTHONPATH": str(ROOT)}
    plugin = ["-p", "tests.benchmarks.training_peft_tests", "-p", "no:cacheprovider"]
    with (folder / f"{kind}.log").open("w") as log:
        command = [sys.executable, "-m", "pytest", "-q", "-k", "dora", "--tb=short", *plugin, *map(str, files)]
        subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
    found: dict[str, Any] = json.loads(results.read_text())
    return found


class _Plugin:
    """Replaces the layer as peft makes it, and writes down how each test ended."""

    def __init__(self, results: Path, *, ours: bool) -> None:
        self.results, self.outcomes, self.used, self.forwards, self.before = results, dict[str, str](), 0, 0, 0
        if ours:
            self._replace()

    def _replace(self) -> None:
        from peft.tuners.lora.layer import Linear

        from runners.training import dora

        update, forward = Linear.update_layer, dora.FastDora.forward

        def updated(module: Any, *arguments: Any, **more: Any) -> None:
            update(module, *arguments, **more)
            dora.install(module)

        def counted(*arguments: Any, **more: Any) -> Any:
            self.forwards += 1
            return forward(*arguments, **more)

        Linear.update_layer, dora.FastDora.forward = updated, counted

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "setup":
            self.before = self.forwards
        self.used += report.when == "call" and self.forwards > self.before
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid] = report.outcome

    def pytest_sessionfinish(self) -> None:
        self.results.write_text(json.dumps({"outcomes": self.outcomes, "used": self.used}))


def pytest_configure(config: Any) -> None:
    """As a plugin of a run of peft's tests."""
    if results := os.environ.get(RESULTS):
        config.pluginmanager.register(_Plugin(Path(results), ours=os.environ["ELSON_PEFT_LAYER"] == "ours"))


def main() -> int:
    """Both runs, and what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to unpack, and leave logs (default: a temporary one)")
    folder = parser.parse_args().folder or Path(tempfile.mkdtemp())
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    files = fetch(folder)
    stock, ours = (run(folder, files, kind) for kind in ("stock", "ours"))
    for name, one in (("stock", stock), ("ours", ours)):
        print(f"{name}: {dict(Counter(one['outcomes'].values()))}; this project's layer computed in {one['used']}; log: {folder / name}.log")
    worse = [name for name, outcome in stock["outcomes"].items() if outcome == "passed" and ours["outcomes"].get(name) != "passed"]
    print("\n".join([f"peft {version('peft')}: {len(worse)} tests pass with stock peft only", *worse]))
    return 1 if worse or not ours["used"] else 0


if __name__ == "__main__":
    sys.exit(main())
