"""``disks.sh`` on real block devices: loop devices and ext4, in mounts of the test's own.

Joining two of them needs the kernel's md driver: test_joined_disks.py.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="no root or no loop devices")
Boot = Callable[..., str]


@pytest.fixture
def ssds(tmp_path: Path) -> Iterator[list[str]]:
    """Two local SSDs of 64 MiB, linked as Google's images link them."""
    (tmp_path / "by-id").mkdir()
    devices = []
    for number in range(2):
        image = tmp_path / f"ssd-{number}.img"
        image.touch()
        os.truncate(image, 64 << 20)
        devices.append(subprocess.run(["losetup", "--find", "--show", str(image)], capture_output=True, text=True, check=True).stdout.strip())
        (tmp_path / "by-id" / f"google-local-nvme-ssd-{number}").symlink_to(devices[-1])
    yield devices
    for device in devices:
        subprocess.run(["losetup", "--detach", device], check=False)


@pytest.fixture
def boot(tmp_path: Path, ssds: list[str]) -> Boot:
    """Run the script as one boot would, then some more commands; the mounts end with it, the disks do not."""
    text = (ROOT / "infra/startup/disks.sh").read_text()
    assert "/dev/disk/by-id/" in text and "WORK=/var/lib/elson/work" in text
    script = tmp_path / "disks.sh"
    script.write_text(text.replace("/dev/disk/by-id/", f"{tmp_path}/by-id/").replace("WORK=/var/lib/elson/work", f"WORK={tmp_path}/work"))

    def booted(*then: str) -> str:
        command = "\n".join(["set -e", f"bash {script}", f"cd {tmp_path}/work", *then])
        done = subprocess.run(["unshare", "--mount", "bash", "-c", command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return booted


def one_is_missing(folder: Path) -> None:
    (folder / "by-id" / "google-local-nvme-ssd-1").unlink()


def test_one_disk_is_formatted_once_and_keeps_its_files_over_a_reboot(boot: Boot, tmp_path: Path) -> None:
    one_is_missing(tmp_path)
    assert "is on 1 local SSD" in boot("echo half > checkpoint", "stat -c %u . > owner", f"bash {tmp_path}/disks.sh > again", "grep mounted again")
    assert boot("cat checkpoint owner").splitlines()[-2:] == ["half", "10001"]


def test_no_disk_is_a_folder_of_the_boot_disk(boot: Boot, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "by-id")
    assert "no local SSD" in boot("test -d .")


def test_a_disk_left_of_two_that_were_joined_is_used_alone(boot: Boot, ssds: list[str], tmp_path: Path) -> None:
    """It carries the mark of its array (md superblock 1.2), and no file system."""
    mark = struct.pack("<II", 0xA92B4EFC, 1).ljust(16, b"\0") + b"u" * 16 + b"elson:0".ljust(32, b"\0")
    mark = (mark.ljust(0x90, b"\0") + struct.pack("<Q", 8)).ljust(256, b"\0")
    with Path(ssds[0]).open("r+b") as disk:
        disk.seek(4096)
        disk.write(mark)
    kind = subprocess.run(["blkid", "--probe", "--output", "value", "--match-tag", "TYPE", ssds[0]], capture_output=True, text=True, check=False).stdout
    assert kind.strip() == "linux_raid_member"
    one_is_missing(tmp_path)
    assert "is on 1 local SSD" in boot("echo new > file")
    assert boot("cat file").endswith("new\n")
