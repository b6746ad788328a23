"""The constant part of a VM's metadata: the startup script, and every file it unpacks.

The files travel as one JSON object of path -> text under the key ``elson-units``: no templating, no download from a place that may be gone, and the agent and
the units always are of the commit that planned the stack. All values (spec, job, images) stand in other keys.
A metadata value may have 256 KiB, all together 512.
"""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_STARTUP = ROOT / "infra" / "startup"
#: The modules the agent imports besides its own; each uses the standard library only.
_SHARED = ("__init__.py", "errors.py", "log.py", "outside.py", "pipeline.py", "artifacts/__init__.py", "artifacts/layout.py")


def metadata() -> dict[str, str]:
    """``startup-script`` and ``elson-units``: equal for every stack of one commit."""
    return {"startup-script": (_STARTUP / "startup.sh").read_text(), "elson-units": json.dumps(files(), sort_keys=True, separators=(",", ":"))}


def files() -> dict[str, str]:
    """Absolute path on the VM -> text."""
    units = {f"/etc/systemd/system/{file.name}": file for file in sorted((_STARTUP / "units").iterdir())}
    scripts = {f"/opt/elson/{file.name}": file for file in sorted(_STARTUP.glob("*.sh")) if file.name != "startup.sh"}
    agent = {f"/opt/elson/runners/{name}": ROOT / "runners" / name for name in _SHARED}
    agent |= {f"/opt/elson/runners/vm/{file.name}": file for file in sorted((ROOT / "runners" / "vm").glob("*.py")) if file.name != "payload.py"}
    return {path: file.read_text() for path, file in (units | scripts | agent).items()}
