#!/bin/bash
# Runs on the VM whose disk becomes a boot image: docker, the toolkit and the role's containers, pulled by digest. `elson images bake` starts it, waits for the guest
# attribute elson/baked, and makes the image. Constant: prepare.sh, the images and what else is brought come from the metadata.
set -euo pipefail

readonly SERVER=http://metadata.google.internal/computeMetadata/v1

metadata() {
	curl --silent --show-error --fail --max-time 30 --retry 8 --retry-delay 3 --retry-all-errors --header 'Metadata-Flavor: Google' "$SERVER/$1"
}

say() {
	curl --silent --show-error --max-time 10 --request PUT --header 'Metadata-Flavor: Google' --data "$1" "$SERVER/instance/guest-attributes/elson/baked"
}

trap 'say "failed at line $LINENO"' ERR

metadata instance/attributes/elson-prepare >/run/prepare.sh
bash /run/prepare.sh --without-gpu

export DOCKER_CONFIG=/run/docker-config
mapfile -t images < <(metadata instance/attributes/elson-images | python3 -c 'import json, sys; print(*json.load(sys.stdin).values(), sep="\n")')
for image in "${images[@]}"; do
	metadata instance/service-accounts/default/token | python3 -c 'import json, sys; print(json.load(sys.stdin)["access_token"], end="")' |
		docker login --username oauth2accesstoken --password-stdin "${image%%/*}"
	docker pull --quiet "$image"
done

# Weights, where they were asked for: the serve container brings and verifies them; its arguments come from runners/cloud/bake.py.
read -r -a bring < <(metadata instance/attributes/elson-bring)
if [[ ${bring[0]} != nothing ]]; then
	install --directory --owner 10001 /var/lib/elson/work
	docker run "${bring[@]}"
fi

# Nothing of this VM goes into the image: no token (its folder is in memory), no identity, no package lists.
apt-get clean
rm --recursive --force /var/lib/apt/lists/* "$HOME/.docker"
: >/etc/machine-id
say "done"
