#!/bin/bash
# Puts the work folder on the bundled local SSDs, if this machine has any: one striped file system. Their content is scratch, but survives a reboot.
set -euo pipefail

readonly WORK=/var/lib/elson/work
readonly USER_ID=10001

shopt -s nullglob
disks=(/dev/disk/by-id/google-local-nvme-ssd-* /dev/disk/by-id/google-local-ssd-*)
# A link ends in -part1 for a partition; those are not disks.
disks=("${disks[@]//*-part*/}")
read -r -a disks <<<"${disks[*]}"

if mountpoint --quiet "$WORK"; then
	echo "elson: $WORK is mounted"
elif ((${#disks[@]} > 0)); then
	# After a reboot udev has joined them already, under a name of its own, where mdadm is installed; one of a pair it holds. Nothing of it is mounted.
	mdadm --stop --scan 2>/dev/null || true
	device=${disks[0]}
	if ((${#disks[@]} > 1)); then
		device=/dev/md0
		if ! mdadm --assemble "$device" "${disks[@]}" 2>/dev/null; then
			mdadm --create "$device" --run --level=0 --raid-devices="${#disks[@]}" "${disks[@]}"
		fi
	fi
	# Anything else is no file system of ours: a new disk, or one left of several that were joined.
	[[ $(blkid --output value --match-tag TYPE "$device" || true) == ext4 ]] || mkfs.ext4 -q -F -E nodiscard "$device"
	mkdir --parents "$WORK"
	mount -o noatime,discard "$device" "$WORK"
	echo "elson: $WORK is on ${#disks[@]} local SSD"
else
	mkdir --parents "$WORK"
	echo "elson: no local SSD, $WORK is on the boot disk"
fi
chown "$USER_ID" "$WORK"
