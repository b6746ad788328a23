"""A small virtual machine: Debian's cloud kernel in QEMU, with programs of this machine in an initramfs, NVMe disks, and a script that it runs.

For what a container cannot have: the kernel's md driver. Kernel and `mdadm` are downloaded from Debian and unpacked; nothing of them is installed here.
The processor is emulated (QEMU's TCG), so it is the same on a machine without /dev/kvm, or with one that does not work: about five seconds a boot.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.vm.simulation.golden import DEBS, unpack

_PROGRAMS = (
    "bash",
    "blkid",
    "cat",
    "chown",
    "cmp",
    "dd",
    "grep",
    "ln",
    "losetup",
    "mkdir",
    "mke2fs",
    "mkfs.ext4",
    "mount",
    "mountpoint",
    "mv",
    "stat",
    "sync",
    "umount",
)
_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
_MODULES = ("md-mod", "raid0")
#: Lines that begin with this are the script's; the rest is the kernel's.
_SAYS = "guest: "
_INIT = """#!/bin/bash
export PATH=/usr/sbin:/sbin:/usr/bin:/bin
mount -t devtmpfs none /dev && mount -t proc none /proc && mount -t sysfs none /sys && mount -t tmpfs none /run
for module in /modules/*.ko; do busybox insmod "$module"; done
# As the rules of Google's images name the disks.
mkdir --parents /dev/disk/by-id /var/lib
for disk in /dev/nvme?n1; do [ -e "$disk" ] && ln -s "$disk" "/dev/disk/by-id/google-local-nvme-ssd-${disk:9:1}"; done
echo
bash /script 2>&1 | while IFS= read -r line; do echo "guest: $line"; done
echo "guest: exit ${PIPESTATUS[0]}"
sync
echo o >/proc/sysrq-trigger
sleep 60
"""


class Guest:
    """Boots the same kernel again and again; ``disks`` outlive a boot."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tree, self._kernel = folder / "tree", _fetched(folder)
        _fill(self._tree, folder / "debian")

    def boot(self, script: str, disks: list[Path], *files: Path) -> str:
        """What the script said until the machine was off, ``exit N`` last. Raises AssertionError with the whole console when it did not come to its end."""
        (self._tree / "script").write_text(script)
        for file in files:
            shutil.copy(file, self._tree / file.name)
        image = self.folder / "initramfs"
        image.write_bytes(b"".join(_archive(self._tree)))
        drives = [
            word
            for number, disk in enumerate(disks)
            for word in ("-drive", f"if=none,id=d{number},format=raw,file={disk}", "-device", f"nvme,drive=d{number},serial=elson{number}")
        ]
        command = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-m", "512", "-nographic", "-no-reboot", "-nic", "none"]
        command += ["-kernel", str(self._kernel), "-initrd", str(image), "-append", "console=ttyS0 loglevel=3 panic=-1", *drives]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=300, check=False)
        said = [line.removeprefix(_SAYS) for line in done.stdout.replace("\r", "").splitlines() if line.startswith(_SAYS)]
        assert said and re.fullmatch(r"exit \d+", said[-1]), done.stdout + done.stderr
        return "\n".join(said)


def missing() -> str:
    """Why no machine can be booted here, or an empty text."""
    absent = [name for name in ("qemu-system-x86_64", "apt-get", "dpkg", "mke2fs") if not shutil.which(name, path=os.environ["PATH"] + ":" + _PATH)]
    if absent:
        return f"not installed: {', '.join(absent)} (`make system` installs them)"
    return "" if _kernel() else "this system's packages have no linux-image-cloud-amd64: Debian's have"


def _fetched(folder: Path) -> Path:
    """Download and unpack what is not there yet; returns the kernel."""
    DEBS.mkdir(parents=True, exist_ok=True)
    (folder / "debian").mkdir(parents=True, exist_ok=True)
    with (DEBS / "guest.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker of this run may want the same
        for package in (_kernel(), "mdadm", "busybox-static"):
            if not list(DEBS.glob(f"{package}_*.deb")):
                subprocess.run(["apt-get", "download", "-qq", package], cwd=DEBS, check=True, capture_output=True)
            unpack(package, folder / "debian")
    return next((folder / "debian/boot").glob("vmlinuz-*"))


def _kernel() -> str:
    """The package that Debian's cloud kernel is in now, or an empty text."""
    depends = subprocess.run(["apt-cache", "depends", "--important", "linux-image-cloud-amd64"], capture_output=True, text=True, check=False).stdout
    return next(iter(re.findall(r"Depends: (linux-image-\S+)", depends)), "")


def _fill(tree: Path, debian: Path) -> None:
    for name in ("dev", "proc", "sys", "run", "tmp", "bin", "modules", "lib64", "etc"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    (tree / "etc/mtab").symlink_to("/proc/self/mounts")
    for name in ("usr/bin", "usr/sbin", "sbin"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).symlink_to("/bin")
    (tree / "init").write_text(_INIT)
    (tree / "init").chmod(0o755)
    for module in _MODULES:
        # In the order of their names, which is that of their needs.
        shutil.copy(next((debian / "lib/modules").glob(f"*/kernel/drivers/md/{module}.ko")), tree / "modules")
    for program in (*(_found(name) for name in _PROGRAMS), debian / "sbin/mdadm", debian / "bin/busybox"):
        shutil.copy(program, tree / "bin" / program.name)
        for library in _libraries(program):
            target = tree / library.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)


def _found(name: str) -> Path:
    found = shutil.which(name, path=_PATH)
    assert found, f"{name} is not on this machine"
    return Path(found)


def _libraries(program: Path) -> list[Path]:
    said = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", said)]


def _archive(tree: Path) -> Iterator[bytes]:
    """The tree as cpio's "newc" format, which the kernel reads (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    for number, path in enumerate([*sorted(tree.rglob("*")), None], 1):
        name, mode, content = b"TRAILER!!!", 0, b""
        if path is not None:
            name, mode = str(path.relative_to(tree)).encode(), path.lstat().st_mode
            content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + name + b"\0"
        yield head + b"\0" * (-len(head) % 4) + content + b"\0" * (-len(content) % 4)
