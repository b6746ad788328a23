#!/usr/bin/env bash
# Debian packages that tests use. Without root it only says what is missing; the tests that need it then say so too.
set -euo pipefail
packages=(chromium)
[ -f tests/vm/packages.txt ] && mapfile -t -O 1 packages < <(grep -v '^#' tests/vm/packages.txt)
missing=()
for package in "${packages[@]}"; do
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	echo "[setup] not installed, and no root to install them: ${missing[*]} (some tests will say that they were skipped)" >&2
	exit 0
fi
echo "[setup] system    installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
