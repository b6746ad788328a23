"""``disks.sh`` with two local SSDs in a virtual machine with Debian's cloud kernel: joined by the kernel's md driver, at the first boot and after a reboot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.vm.simulation import guest
from tests.vm.simulation.guest import Guest

SCRIPT = Path(__file__).resolve().parents[2] / "infra/startup/disks.sh"
DISK_BYTES = 96 << 20
#: More than two chunks of 512 KiB, so that it is on both disks.
FILL = "dd if=/dev/urandom of=/var/lib/elson/work/checkpoint bs=1M count=4 2>/dev/null; busybox md5sum /var/lib/elson/work/checkpoint >/var/lib/elson/work/sum"
HERE = "busybox md5sum -c /var/lib/elson/work/sum"
#: What udev's rule does with each disk at a boot (64-md-raid-assembly.rules of Debian's and Ubuntu's mdadm).
UDEV = "for disk in /dev/nvme?n1; do mdadm --incremental --export $disk >/dev/null 2>&1; done"
JOIN = "bash /disks.sh || exit"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Guest:
    if reason := guest.missing():
        if os.environ.get("CI") and os.geteuid() == 0:
            pytest.fail(reason)
        pytest.skip(reason)
    return Guest(tmp_path_factory.mktemp("guest"))


@pytest.fixture
def ssds(tmp_path: Path) -> list[Path]:
    """Two blank disks."""
    disks = [tmp_path / f"ssd-{number}.img" for number in range(2)]
    for disk in disks:
        disk.touch()
        os.truncate(disk, DISK_BYTES)
    return disks


@pytest.mark.timeout(300)
def test_two_ssds_are_one_file_system_that_outlives_a_reboot(machine: Guest, ssds: list[Path]) -> None:
    told = "cat /proc/mdstat; stat -c 'owner %u' /var/lib/elson/work; stat -f -c 'room %b of %S' /var/lib/elson/work"
    first = machine.boot(f"{JOIN}; {FILL}; {told}; bash /disks.sh; sync", ssds, SCRIPT)
    assert "is on 2 local SSD" in first and first.endswith("exit 0"), first
    assert "md0 : active raid0 nvme1n1[1] nvme0n1[0]" in first and "owner 10001" in first
    assert "elson: /var/lib/elson/work is mounted" in first, "a second run changes nothing"
    blocks, size = (int(word) for word in first.partition("room ")[2].split("\n")[0].split(" of "))
    assert DISK_BYTES * 1.5 < blocks * size < DISK_BYTES * 2, "the room of both"
    # As a VM finds them that is made from a boot image without mdadm, then as udev leaves them where it is installed: joined already.
    again = machine.boot(f"{JOIN}; {HERE}; umount /var/lib/elson/work; mdadm --stop /dev/md0; {UDEV}; cat /proc/mdstat; {JOIN}; {HERE}", ssds, SCRIPT)
    assert again.count("is on 2 local SSD") == 2 and again.count("checkpoint: OK") == 2 and again.endswith("exit 0"), again
    assert "active raid0" in again, "udev's rule had joined them"


@pytest.mark.timeout(300)
def test_one_ssd_of_a_pair_is_used_alone_and_with_a_strange_one_they_are_joined_anew(machine: Guest, ssds: list[Path]) -> None:
    """Udev holds each that bears the mark of a pair."""
    one, other = ssds
    made = machine.boot(f"{JOIN}; {FILL}", ssds, SCRIPT)
    assert made.endswith("exit 0"), made
    alone = machine.boot(f"{UDEV}; {JOIN}; {FILL}; {HERE}", [other], SCRIPT)
    assert "is on 1 local SSD" in alone and "checkpoint: OK" in alone and alone.endswith("exit 0"), alone
    strange = machine.boot(f"{UDEV}; {JOIN}; cat /proc/mdstat", [one, other], SCRIPT)
    assert "is on 2 local SSD" in strange and "active raid0" in strange and strange.endswith("exit 0"), strange
