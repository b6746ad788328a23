#!/bin/bash
# Runs at every boot, from the instance's metadata: unpacks the agent and the units, starts the role's target and returns. Constant: every value is metadata.
# The units are not enabled, so nothing of ours runs at a boot before this script has unpacked the files of this boot's metadata.
set -euo pipefail

readonly SERVER=http://metadata.google.internal/computeMetadata/v1
readonly FILES=/run/elson/units.json

metadata() {
	curl --silent --show-error --fail --max-time 30 --retry 8 --retry-delay 3 --retry-all-errors --header 'Metadata-Flavor: Google' "$SERVER/$1"
}

# The script runner reports a failed script as a success, and an idle GPU costs as much as a busy one: so a start that fails empties the group by itself.
give_up() {
	local line=$1 token url
	echo "elson: startup failed at line $line; this VM ends" >&2
	curl --silent --max-time 5 --request PUT --header 'Metadata-Flavor: Google' --data "{\"status\": \"failed\", \"reason\": \"startup script, line $line\"}" \
		"$SERVER/instance/guest-attributes/elson/state" || true
	token=$(metadata instance/service-accounts/default/token | python3 -c 'import json, sys; print(json.load(sys.stdin)["access_token"])')
	url="https://compute.googleapis.com/compute/v1/projects/$(metadata project/project-id)/regions/$(metadata instance/attributes/elson-region)"
	# The header comes from a file descriptor: an argument would show the token in the list of processes.
	curl --silent --show-error --fail --max-time 30 --retry 8 --retry-delay 5 --retry-all-errors --request POST --header 'Content-Length: 0' \
		--header @<(printf 'Authorization: Bearer %s\n' "$token") \
		"$url/instanceGroupManagers/$(metadata instance/attributes/elson-group)/resize?size=0"
	exit 1
}
trap 'give_up $LINENO' ERR

install --directory --mode 0711 /run/elson
role=$(metadata instance/attributes/elson-role)
[[ $role == train || $role == serve ]]
metadata instance/attributes/elson-units >"$FILES"

python3 - "$FILES" <<'PYTHON'
import json, pathlib, sys

for name, text in json.loads(pathlib.Path(sys.argv[1]).read_text()).items():
    path = pathlib.Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
PYTHON

systemctl daemon-reload
# --no-block: the script runner waits for this script, the job takes hours.
systemctl start --no-block "elson-$role.target"
echo "elson: $role started"
