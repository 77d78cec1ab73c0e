#!/bin/sh
# Stops a private Postgres of this program and removes it with all its data.
#
# Usage: scripts/clean-private-postgres.sh          only says what would go
#        scripts/clean-private-postgres.sh --yes    does it
#
# The clusters looked for: that of `hms-orch` without a database URL, and that of the tests.
set -eu

# Where hms-orch keeps it (src/dev_postgres/place.rs), then where the tests do (tests/it/support/db.rs).
places() {
    if [ -n "${HMS_DATA_DIR:-}" ]; then
        printf '%s\n' "$HMS_DATA_DIR/postgres"
    else
        printf '%s\n' "${XDG_DATA_HOME:-$HOME/.local/share}/hms/postgres"
        [ "$(id -u)" -ne 0 ] || printf '%s\n' /var/lib/hms/postgres
    fi
    printf '%s\n' "${CARGO_TARGET_DIR:-target}/tmp/pg" "/var/tmp/syncor-tests-$(id -u)/pg"
}

# SIGINT is the server's fast shutdown: open transactions are rolled back and everything is written out.
stop() {
    [ -f "$1/postmaster.pid" ] || return 0
    pid=$(head -n 1 "$1/postmaster.pid")
    kill -INT "$pid" 2>/dev/null || return 0
    waited=0
    while kill -0 "$pid" 2>/dev/null; do
        waited=$((waited + 1))
        if [ "$waited" -gt 60 ]; then
            printf '%s\n' "the server in $1 (pid $pid) does not stop: nothing was removed" >&2
            exit 1
        fi
        sleep 1
    done
}

found=no
for folder in $(places); do
    # Only a folder that holds a cluster, and one that we made: ours have their port beside them.
    if [ ! -f "$folder/PG_VERSION" ] || [ ! -f "$folder.port" ]; then
        continue
    fi
    found=yes
    if [ "${1:-}" != --yes ]; then
        printf '%s\n' "would stop and remove $folder and $folder.*"
        continue
    fi
    stop "$folder"
    rm -rf -- "$folder" "$folder".conf "$folder".lock "$folder".log "$folder".password "$folder".pgpass "$folder".port "$folder".socket
    printf '%s\n' "removed $folder"
done
if [ "$found" = no ]; then
    printf '%s\n' "there is no private Postgres here"
elif [ "${1:-}" != --yes ]; then
    printf '%s\n' "nothing was removed: say --yes (make clean-private-postgres YES=1)"
fi
