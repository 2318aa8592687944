#!/usr/bin/env bash
# Make sure that PostgreSQL, RabbitMQ and Redis are on this machine: root installs those that are missing, without
# starting a service; other users are told what to install. A server is not needed if the environment gives its URL.
# With the argument "tests", also Node, in which the tests run a producer, and PgBouncer.
set -euo pipefail

missing=()
if [ -z "${DSPEX_TEST_DATABASE_URL:-}" ] && ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null \
    && ! command -v initdb >/dev/null; then
    missing+=(postgresql)
fi
if [ -z "${DSPEX_TEST_BROKER_URL:-}" ] && ! [ -x /usr/sbin/rabbitmq-server ] \
    && ! command -v rabbitmq-server >/dev/null; then
    missing+=(rabbitmq-server)
fi
if [ -z "${DSPEX_TEST_REDIS_URL:-}" ] && ! command -v redis-server >/dev/null; then
    missing+=(redis-server)
fi
if [ "${1:-}" = tests ]; then
    command -v node >/dev/null || missing+=(nodejs)
    command -v npm >/dev/null || missing+=(npm)
    command -v openssl >/dev/null || missing+=(openssl)
    command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] || missing+=(pgbouncer)
fi
[ "${#missing[@]}" = 0 ] && exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "Missing on this machine; on Debian or Ubuntu: sudo apt-get install ${missing[*]}" >&2
    exit 1
fi

echo "Installing ${missing[*]}"
policy=/usr/sbin/policy-rc.d
if ! [ -e "$policy" ]; then
    # Packages run this before they start their service; 101 means no.
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
log="$(mktemp)"
if ! { apt-get -q update && apt-get -q install -y --no-install-recommends "${missing[@]}"; } </dev/null >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    echo "apt-get could not install ${missing[*]}: its last words are above" >&2
    exit 1
fi
rm -f "$log"
