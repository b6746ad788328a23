#!/bin/bash
# Docker with the GPUs (CDI), and nothing that changes the driver under a running job. Does nothing twice: a baked image or a second boot passes in a second.
set -euo pipefail

readonly TOOLKIT=https://nvidia.github.io/libnvidia-container
readonly KEYRING=/usr/share/keyrings/nvidia-container-toolkit.gpg
readonly DAEMON='{"features": {"cdi": true}, "log-driver": "local", "max-concurrent-downloads": 8}'

# retry TRIES PAUSE COMMAND...: registries, locks and drivers have bad moments at boot.
retry() {
	local tries=$1 pause=$2 attempt
	shift 2
	for ((attempt = 1; attempt <= tries; attempt++)); do
		"$@" && return 0
		echo "elson: $1 failed ($attempt of $tries)" >&2
		sleep "$pause"
	done
	return 1
}

apt() {
	DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 --yes --quiet --no-install-recommends "$@"
}

# Without what systemd counted: after three starts in a minute, boot's included, it refuses the next.
restart_docker() { systemctl reset-failed docker.service && systemctl restart docker.service; }

# An upgrade in the middle of a job would take the driver's modules away.
systemctl stop apt-daily.timer apt-daily-upgrade.timer unattended-upgrades.service 2>/dev/null || true
systemctl mask apt-daily.service apt-daily-upgrade.service unattended-upgrades.service 2>/dev/null || true
mapfile -t driver < <(dpkg-query --show --showformat '${Package}\n' 'nvidia-*' 'libnvidia-*' 'linux-*-nvidia*' 2>/dev/null || true)
((${#driver[@]} == 0)) || apt-mark hold "${driver[@]}" >/dev/null

# Machines with several local SSDs join them (disks.sh); others need no mdadm.
ssds=(/dev/disk/by-id/google-local-*ssd-?)
((${#ssds[@]} < 2)) || command -v mdadm >/dev/null || { retry 5 10 apt update && retry 5 10 apt install mdadm; }
command -v dockerd >/dev/null || { retry 5 10 apt update && retry 5 10 apt install docker.io; }
if ! command -v nvidia-ctk >/dev/null; then
	retry 5 10 curl --silent --show-error --fail --location --output /run/elson/toolkit.asc "$TOOLKIT/gpgkey"
	gpg --batch --yes --dearmor --output "$KEYRING" /run/elson/toolkit.asc
	echo "deb [signed-by=$KEYRING] $TOOLKIT/stable/deb/\$(ARCH) /" >/etc/apt/sources.list.d/nvidia-container-toolkit.list
	retry 5 10 apt update
	retry 5 10 apt install nvidia-container-toolkit
fi

mkdir --parents /etc/cdi /etc/docker
# A boot image is baked on a machine without a GPU; the cards are described at every boot of the real one.
if [[ ${1:-} != --without-gpu ]]; then
	retry 30 5 nvidia-smi --list-gpus
	nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml
fi
if [[ "$(cat /etc/docker/daemon.json 2>/dev/null)" != "$DAEMON" ]]; then
	echo "$DAEMON" >/etc/docker/daemon.json
	retry 6 5 restart_docker
fi
# The gateway is no root and may still have port 443.
sysctl --quiet --write net.ipv4.ip_unprivileged_port_start=443
retry 12 5 docker info --format 'docker {{.ServerVersion}}'
