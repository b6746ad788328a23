"""One simulated VM: an overlay of the golden root, booted by systemd-nspawn inside the world's network namespace."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from runners.processes import bound
from tests.vm.simulation import golden, namespace
from tests.vm.simulation.services import Metadata


class Machine:
    #: systemd-nspawn's exit code when the system inside asked for a reboot.
    REBOOT = 133

    def __init__(self, name: str, folder: Path, network: Path, metadata: Metadata) -> None:
        self.name, self.folder, self.network, self.metadata = name, folder, network, metadata
        self.root, self.console = folder / "root", folder / "console.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._on_at = self._off_at = 0.0

    def boot(self) -> None:
        """Switch on. The disk is new the first time, and as it was left the next time."""
        self.make_disk()
        self._on_at, self._off_at = self._on_at or time.monotonic(), 0.0
        golden.mount(self.root, self.folder / "upper", self.folder / "work")
        (self.root / "etc/hostname").write_text(f"{self.name}\n")
        docker = self.folder / "docker"
        docker.mkdir(exist_ok=True)
        command = ["systemd-nspawn", "--directory", str(self.root), "--boot", "--register=no", "--keep-unit", f"--network-namespace-path={self.network}"]
        command += ["--capability=all", "--system-call-filter=@keyring", "--console=pipe", f"--bind={docker}:/var/lib/docker", f"--machine={self.name}"]
        # The project, wherever it was cloned: nspawn hides /tmp, and another file system is not in the overlay of "/".
        command.append(f"--bind-ro={golden.ROOT}:{golden.ROOT}:norbind")
        with self.console.open("ab") as console:
            self.process = subprocess.Popen(bound(command, signal.SIGKILL), stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True)

    def make_disk(self) -> None:
        """The disk's content, if there is none yet; a test may add to it before the first boot."""
        upper = self.folder / "upper"
        if not upper.exists():
            # A copy, since a lower layer may not lie inside another ("/"); --archive keeps the overlay's marks.
            subprocess.run(["cp", "--archive", str(golden.UPPER), str(upper)], check=True)

    @property
    def is_on(self) -> bool:
        on = self.process is not None and self.process.poll() is None
        if not on:
            self._off_at = self._off_at or time.monotonic()
        return on

    @property
    def seconds_on(self) -> float:
        """What is billed: from the first switching on to the end, as the group saw it."""
        return (time.monotonic() if self.is_on else self._off_at) - self._on_at

    @property
    def leader(self) -> int:
        """The VM's PID 1, seen from here."""
        assert self.process
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def press_power_button(self) -> None:
        """What ACPI G2 does: systemd shuts down in order."""
        with contextlib.suppress(ProcessLookupError, IndexError, FileNotFoundError):
            os.kill(self.leader, signal.SIGRTMIN + 4)

    def pull_the_plug(self) -> None:
        with contextlib.suppress(IndexError, FileNotFoundError):
            namespace.kill(self.leader)
        if self.process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
            self.process.kill()
            self.process.wait()

    def off(self, within_s: float) -> None:
        """Press the button, and pull the plug when the time is up."""
        self.press_power_button()
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self.process:
                self.process.wait(within_s)
        self.pull_the_plug()

    def delete(self) -> None:
        """Remove the machine's mounts and disks; the console's log stays."""
        self.pull_the_plug()
        unmount(self.root)
        for name in ("upper", "work", "docker", "root"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def run(self, *command: str, check: bool = True, timeout_s: float = 60, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command inside the VM."""
        variables = [f"{key}={value}" for key, value in (environment or {}).items()]
        entered = ["nsenter", f"--target={self.leader}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd", "--"]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return subprocess.run([*entered, "env", "-i", path, *variables, *command], capture_output=True, text=True, timeout=timeout_s, check=check)

    def journal(self) -> str:
        """Everything our units said in all boots of this VM; read from its disk when it is off, empty while it comes up."""
        asked = ["journalctl", "--no-pager", "--output=short-precise", "--unit=elson-*", "--unit=google-startup-scripts", "--unit=docker"]
        if not self.is_on:
            return subprocess.run([*asked, f"--directory={self.folder / 'upper/var/log/journal'}"], capture_output=True, text=True, check=False).stdout
        with contextlib.suppress(IndexError, OSError, subprocess.TimeoutExpired):
            return self.run(*asked, check=False).stdout
        return ""

    def wait_for(self, *command: str, within_s: float = 30) -> None:
        """Until a command succeeds inside the VM."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            with contextlib.suppress(IndexError, FileNotFoundError, subprocess.TimeoutExpired):
                if self.run(*command, check=False).returncode == 0:
                    return
            time.sleep(0.3)
        raise TimeoutError(f"{self.name}: {command} did not succeed in {within_s} s")


def unmount(root: Path) -> None:
    if root.is_mount():
        subprocess.run(["umount", "--lazy", str(root)], check=False)
