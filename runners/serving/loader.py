"""vLLM's loader for a folder that is still arriving: it reads each shard when ``runners/artifacts/arrival.py`` has verified it.

vLLM finds ``register`` by an entry point (``vllm.general_plugins``) in every process that it starts. Left out: vLLM's own streamers (Run:ai, fastsafetensors).
They read as fast, but check nothing, and cannot be told to wait.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runners.artifacts.arrival import is_here

LOAD_FORMAT = "elson"
_PAUSE_S = 0.02


def install(folder: Path) -> Path:
    """Write the entry point into a folder for PYTHONPATH; returns it. A package's metadata is all that vLLM looks for."""
    metadata = folder / "elson_loader-1.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: elson-loader\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(f"[vllm.general_plugins]\nelson = {__name__}:register\n")
    return folder


def register() -> None:
    """Tell vLLM of the loader."""
    from dataclasses import replace

    from vllm.model_executor.model_loader import _LOAD_FORMAT_TO_MODEL_LOADER, register_model_loader
    from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

    if LOAD_FORMAT in _LOAD_FORMAT_TO_MODEL_LOADER:
        return

    @register_model_loader(LOAD_FORMAT)
    class ArrivingModelLoader(DefaultModelLoader):  # type: ignore[misc, unused-ignore]  # vLLM is in the server's environment alone
        """The default loader, shard by shard."""

        counter_before_loading_weights: float

        def __init__(self, load_config: Any) -> None:
            super().__init__(replace(load_config, load_format="safetensors"))

        def _get_weights_iterator(self, source: Any) -> Iterator[tuple[str, Any]]:
            from vllm.model_executor.model_loader.weight_utils import safetensors_weights_iterator

            folder, files, _, _ = self._prepare_weights(
                source.model_or_path, source.subfolder, source.revision, source.fall_back_to_pt, source.allow_patterns_overrides
            )
            for file in sorted(files):
                wait_for(Path(folder), Path(file))
                if self.counter_before_loading_weights == 0.0:
                    self.counter_before_loading_weights = time.perf_counter()
                for name, tensor in safetensors_weights_iterator([file], False):
                    yield source.prefix + name, tensor


def wait_for(folder: Path, file: Path) -> None:
    """Return when a shard may be read. Whoever brings it ends this process when it cannot be had."""
    while not is_here(folder, file.relative_to(folder).as_posix()):
        time.sleep(_PAUSE_S)
