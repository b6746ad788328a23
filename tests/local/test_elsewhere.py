"""`elson run` called from a folder that is not the project's: its stages work where the user is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from runners.environments import ROOT


def test_a_run_stays_in_the_folder_it_is_called_from(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('a file of the user is not a module of ours')")
    command = [str(Path(sys.executable).parent / "elson"), "run", "--profile", "tiny", "--until", "data"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-1000:]
    assert list((tmp_path / ".elson" / "bucket" / "models").glob("*/model.safetensors"))
    assert not (ROOT / ".elson" / "work" / "tiny" / "base-made").exists()
