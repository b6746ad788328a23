"""``images/bake.sh`` in a real bash, with stand-ins of the commands that would touch this machine; paths outside the test's folder are replaced."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from runners.cloud import bake
from tests.cloud.baked_disk import line_of

ROOT = Path(__file__).resolve().parents[2]
SERVE, GATEWAY = (f"us-docker.pkg.dev/proj/elson/{name}@sha256:{'a' * 64}" for name in ("serve", "gateway"))
#: Each notes its words; curl answers from a folder of values, and keeps what is put; docker fails where the test says so.
COMMANDS = {
    "curl": """#!/bin/bash
url=${@: -1} path=${url#http://metadata.google.internal/computeMetadata/v1/}
[[ " $* " == *" Metadata-Flavor: Google "* ]] || exit 22
while (($#)); do [[ $1 == --data ]] && data=$2; shift; done
if [[ -v data ]]; then echo "said $path $data" >>"$NOTES"; else cat "$VALUES/$path" 2>/dev/null || exit 22; fi
""",
    "docker": """#!/bin/bash
echo "docker $*" >>"$NOTES"
[[ $1 != login ]] || { [[ $(cat) == a-token && $DOCKER_CONFIG == /run/* ]] || exit 1; }
[[ $1 != "$FAILS" ]]
""",
    "apt-get": '#!/bin/bash\necho "apt-get $*" >>"$NOTES"\n',
    "install": '#!/bin/bash\necho "install $*" >>"$NOTES"\n',
}


def baked(folder: Path, bring: list[str], fails: str = "") -> tuple[int, list[str]]:
    """Exit code, and what was done in its order."""
    programs, values, here = folder / "bin", folder / "values", folder / "vm"
    for name, text in COMMANDS.items():
        programs.mkdir(exist_ok=True)
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    prepare = '[[ $1 == --without-gpu ]] && echo "prepared" >>"$NOTES"\n'
    for path, value in (
        ("instance/attributes/elson-prepare", prepare),
        ("instance/attributes/elson-images", json.dumps({"serve": SERVE, "gateway": GATEWAY})),
        ("instance/attributes/elson-bring", " ".join(bring) + "\n"),
        ("instance/service-accounts/default/token", json.dumps({"access_token": "a-token"})),
    ):
        (values / path).parent.mkdir(parents=True, exist_ok=True)
        (values / path).write_text(value)
    for place in ("run", "var/lib/apt/lists", "etc"):
        (here / place).mkdir(parents=True)
    (here / "var/lib/apt/lists/a-list").touch()
    (here / "etc/machine-id").write_text("0123\n")
    text = (ROOT / "images/bake.sh").read_text()
    for there in ("/run/prepare.sh", "/var/lib/apt/lists", "/etc/machine-id"):
        assert there in text
        text = text.replace(there, f"{here}{there}")
    (folder / "bake.sh").write_text(text)
    (folder / "notes").touch()
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(folder), "NOTES": str(folder / "notes"), "VALUES": str(values), "FAILS": fails}
    done = subprocess.run(["bash", str(folder / "bake.sh")], env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, (folder / "notes").read_text().splitlines()


def said(text: str) -> str:
    return f"said instance/guest-attributes/elson/baked {text}"


def test_weights_are_brought_by_the_pulled_container_before_it_is_said_to_be_done(tmp_path: Path) -> None:
    bring = bake.bring_arguments(SERVE, "gs://scratch/specs/a.json")
    code, notes = baked(tmp_path, bring)
    assert code == 0
    login = "docker login --username oauth2accesstoken --password-stdin us-docker.pkg.dev"
    pulls = [line for image in (SERVE, GATEWAY) for line in (login, f"docker pull --quiet {image}")]
    folder = "install --directory --owner 10001 /var/lib/elson/work"
    assert notes == ["prepared", *pulls, folder, f"docker run {' '.join(bring)}", "apt-get clean", said("done")]
    assert not (tmp_path / "vm/etc/machine-id").read_text() and not list((tmp_path / "vm/var/lib/apt/lists").iterdir())


def test_without_weights_nothing_is_run(tmp_path: Path) -> None:
    code, notes = baked(tmp_path, ["nothing"])
    assert code == 0 and not [line for line in notes if line.startswith(("docker run", "install"))] and notes[-1] == said("done")


@pytest.mark.parametrize(("fails", "line"), [("run", "docker run"), ("pull", "docker pull")])
def test_what_fails_is_said_by_its_line_and_nothing_is_called_done(fails: str, line: str, tmp_path: Path) -> None:
    code, notes = baked(tmp_path, bake.bring_arguments(SERVE, "gs://scratch/specs/a.json"), fails)
    assert code != 0 and notes[-1] == said(f"failed at line {line_of(line)}") and "apt-get clean" not in notes
