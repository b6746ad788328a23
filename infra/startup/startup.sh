#!/bin/bash
# Runs at every boot, from the instance's metadata: arms the dead man's switch, unpacks the agent and the units, starts the role's target and returns. Constant:
# every value is metadata. The units are not enabled, so nothing of ours runs at a boot before this script has unpacked the files of this boot's metadata.
set -euo pipefail

SERVER=http://metadata.google.internal/computeMetadata/v1 PATIENCE_S=600

metadata() {
	curl --silent --show-error --fail --max-time 30 --retry 150 --retry-delay 4 --retry-max-time "$PATIENCE_S" --retry-all-errors \
		--header 'Metadata-Flavor: Google' "$SERVER/$1"
}

empty_group() {
	# One of several servers ends alone, and its group makes another: the watchdog bounds what they are together.
	! curl --silent --fail --max-time 10 --header 'Metadata-Flavor: Google' "$SERVER/instance/attributes/elson-replicas" >/dev/null || return 1
	local token url && token=$(metadata instance/service-accounts/default/token | sed -n 's/.*"access_token" *: *"\([^"]*\)".*/\1/p')
	[[ -n $token ]] || return 1
	url="https://compute.googleapis.com/compute/v1/projects/$(metadata project/project-id)/regions/$(metadata instance/attributes/elson-region)"
	curl --silent --show-error --fail --max-time 30 --retry 8 --retry-delay 5 --retry-all-errors --request POST --header 'Content-Length: 0' \
		--header @<(printf 'Authorization: Bearer %s\n' "$token") "$url/instanceGroupManagers/$(metadata instance/attributes/elson-group)/resize?size=0" # the token by a descriptor: an argument shows
}

# Ends a VM on which none of our units has worked for a quarter of an hour, or that is older than its job allows; whatever our Python and the job's state say.
dead_man() {
	local quiet=0 age=0 limit=
	while sleep 60; do
		age=$((age + 1)) quiet=$((quiet + 1))
		[[ -z $(systemctl list-units --no-legend --plain --state=activating,running elson-{check,prepare,pull@*,train,watch,failed@*}.service) ]] || quiet=0
		[[ $limit =~ ^[0-9]+$ ]] || limit=$(curl --silent --fail --max-time 10 --header 'Metadata-Flavor: Google' "$SERVER/instance/attributes/elson-max-minutes")
		((quiet >= 15 || age >= ${limit:-60})) || continue
		echo "elson: dead man's switch: quiet for $quiet minutes, $age old, ${limit:-60} allowed; this VM ends" >&2
		empty_group && sleep 240
		systemctl poweroff --force
	done
}
# A description, since the default is the command line, whose line breaks systemd cannot read back.
systemd-run --quiet --collect --unit=elson-dead-man --description="elson: end a VM that does nothing" --property=Restart=always /bin/bash -c "SERVER=$SERVER PATIENCE_S=60; $(declare -f metadata empty_group dead_man); dead_man" || true

# The script runner reports a failed script as a success, and an idle GPU costs as much as a busy one: so a start that fails ends the VM.
give_up() {
	echo "elson: startup failed at line $1; this VM ends" >&2
	PATIENCE_S=$((PATIENCE_S / 10)) # a metadata server that was away for all of it is not waited for once more
	curl --silent --max-time 5 --request PUT --header 'Metadata-Flavor: Google' --data "{\"status\": \"failed\", \"reason\": \"startup script, line $1\"}" \
		"$SERVER/instance/guest-attributes/elson/state" || true
	empty_group || systemctl poweroff
	exit 1
}
trap 'give_up $LINENO' ERR

install --directory --mode 0711 /run/elson
role=$(metadata instance/attributes/elson-role)
[[ $role == train || $role == serve ]]
metadata instance/attributes/elson-units | python3 -c 'import json, pathlib, sys
for name, text in json.load(sys.stdin).items():
    pathlib.Path(name).parent.mkdir(parents=True, exist_ok=True), pathlib.Path(name).write_text(text)'
systemctl daemon-reload
# --no-block: the script runner waits for this script, the job takes hours.
systemctl start --no-block "elson-$role.target"
echo "elson: $role started"
