#!/usr/bin/env bash
# The Debian packages that some tests need: `list` names what is missing, `install` installs it. Nothing else in this repository runs apt.
set -euo pipefail
packages=(chromium tmux)
[ -f tests/vm/packages.txt ] && mapfile -t -O 2 packages < <(grep -v '^#' tests/vm/packages.txt)
missing=()
for package in "${packages[@]}"; do
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
	[ "${1:-list}" = list ] || echo "[system] all of these are installed: ${packages[*]}"
	exit 0
fi
if [ "${1:-list}" = list ]; then
	echo "[system] not installed, so the tests that need them were skipped: ${missing[*]}. \`make system\` installs them."
	exit 0
fi
echo "[system] Debian packages to install, system-wide: ${missing[*]}"
command -v apt-get >/dev/null || { echo "error: this system has no apt-get; install these packages with its own package manager" >&2 && exit 1; }
run=()
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo >/dev/null || { echo "error: this needs root and there is no sudo; as root: apt-get install ${missing[*]}" >&2 && exit 1; }
	run=(sudo)
fi
"${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
"${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
echo "[system] installed"
