#!/bin/sh
# On Cloud Run, where no agent does it: the keys of the mounted secret (ELSON_KEYS, one a line) become the two files that the Caddyfile imports; then Caddy.
# vLLM's own key is the digest of the first one, as in runners/serving/serve.py. Nothing is printed of any key, and none is in an argument or a variable of Caddy's.
set -euf
umask 077
mkdir -p "$ELSON_SECRETS"
refuse() {
	echo "{\"severity\": \"ERROR\", \"message\": \"the API key's secret is empty, short or has odd characters: elson key rotate\"}" >&2
	exit 1
}
first=""
: >"$ELSON_SECRETS/keys.caddy"
{
	printf '@authorized {\n'
	# Words, not lines: a last line without its end counts too.
	for key in $(cat "$ELSON_KEYS"); do
		case "$key" in *[!A-Za-z0-9_-]*) refuse ;; esac
		[ "${#key}" -ge 20 ] || refuse
		printf '\theader Authorization "Bearer %s"\n' "$key"
		first="${first:-$key}"
	done
	printf '}\n'
} >"$ELSON_SECRETS/keys.caddy"
[ -n "$first" ] || refuse
inner=$(printf %s "$first" | sha256sum | cut -c1-64)
printf 'header_up Authorization "Bearer %s"\n' "$inner" >"$ELSON_SECRETS/upstream.caddy"
unset first inner key
# The platform says which port it sends requests to.
export ELSON_SITE=":$PORT"
exec caddy run --config "${ELSON_CADDYFILE:-/etc/caddy/Caddyfile}" --adapter caddyfile
