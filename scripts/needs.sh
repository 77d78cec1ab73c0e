#!/bin/sh
# Finds what the build and the tests need, installs what is missing where that is allowed, and says what to do where it is not.
#
#   - cargo, and a C compiler with its headers: TLS (aws-lc) and the allocator are C, and Rust links with it.
#     No CMake, Perl, Go or bindgen: their output comes with the sources on x86-64 and arm64 Linux and macOS.
#   - the server programs of Postgres 15 to 18: initdb, pg_ctl, postgres. Only the programs: nothing here starts a server,
#     and none is left listening on port 5432.
#
# Usage: scripts/needs.sh [--quiet]
set -eu

quiet=no
[ "${1:-}" = "--quiet" ] && quiet=yes

say() {
    [ "$quiet" = yes ] || printf '%s\n' "needs: $*" >&2
}

fail() {
    printf '%s\n' "needs: $*" >&2
    exit 1
}

# As root directly, else with sudo if it asks for no password.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

may_install() {
    command -v apt-get >/dev/null 2>&1 || return 1
    [ "$(id -u)" -eq 0 ] && return 0
    command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null
}

updated=no
install() {
    if [ "$updated" = no ]; then
        as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q >&2
        updated=yes
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" >&2
}

# A whole set of programs of a version that is supported; the same places as src/dev_postgres/binaries.rs.
is_server() {
    for program in initdb pg_ctl postgres; do
        [ -x "$1/$program" ] || return 1
    done
    version=$("$1/postgres" --version 2>/dev/null | awk '{ split($3, v, /[^0-9]/); print v[1] }')
    case $version in
        15 | 16 | 17 | 18) return 0 ;;
        *) return 1 ;;
    esac
}

find_server() {
    if [ -n "${HMS_PG_BIN:-}" ]; then
        is_server "$HMS_PG_BIN" || return 1
        printf '%s\n' "$HMS_PG_BIN"
        return 0
    fi
    found=$(command -v postgres 2>/dev/null || true)
    if [ -n "$found" ] && is_server "$(dirname "$found")"; then
        dirname "$found"
        return 0
    fi
    for version in 18 17 16 15; do
        for folder in "/usr/lib/postgresql/$version/bin" "/usr/pgsql-$version/bin" \
            "/opt/homebrew/opt/postgresql@$version/bin" "/usr/local/opt/postgresql@$version/bin"; do
            if is_server "$folder"; then
                printf '%s\n' "$folder"
                return 0
            fi
        done
    done
    return 1
}

# Debian makes and starts a cluster on port 5432 as soon as the server is installed. We want the programs only, so that is
# switched off for the time of the installation and put back as it was.
install_server() {
    install postgresql-common
    conf=/etc/postgresql-common/createcluster.conf
    backup=
    if [ -f "$conf" ]; then
        backup=$(mktemp)
        cat "$conf" >"$backup"
        trap 'as_root cp "$backup" "$conf"; rm -f "$backup"' EXIT
        trap 'exit 130' INT TERM
    fi
    printf 'create_main_cluster = false\n' | as_root tee -a "$conf" >/dev/null
    install postgresql
    if [ -n "$backup" ]; then
        as_root cp "$backup" "$conf"
        rm -f "$backup"
        trap - EXIT INT TERM
    else
        as_root rm -f "$conf"
    fi
}

can_compile() {
    command -v cc >/dev/null 2>&1 || return 1
    printf '#include <stdlib.h>\nint main(void) { return 0; }\n' | cc -x c -o /dev/null - 2>/dev/null
}

if ! command -v cargo >/dev/null 2>&1; then
    if [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
        fail "cargo is in ${CARGO_HOME:-$HOME/.cargo}/bin, which is not in PATH: run \`. \"${CARGO_HOME:-$HOME/.cargo}/env\"\` and try again"
    fi
    fail "cargo is missing: install Rust 1.95 or later from https://rustup.rs and try again"
fi

if ! can_compile; then
    if may_install; then
        say "installing a C compiler"
        install gcc libc6-dev
    fi
    can_compile || fail "a C compiler with its headers is missing: run \`apt-get install gcc libc6-dev\` as root and try again"
fi

if ! server=$(find_server); then
    [ -z "${HMS_PG_BIN:-}" ] || fail "HMS_PG_BIN=$HMS_PG_BIN does not hold initdb, pg_ctl and postgres of version 15 to 18: correct or unset it"
    if may_install; then
        say "installing the server programs of Postgres (no server is started)"
        install_server
    fi
    server=$(find_server) || fail "the server programs of Postgres 15 to 18 are missing: run \`apt-get install postgresql\` as root, or set HMS_PG_BIN to the folder that holds initdb, pg_ctl and postgres"
fi

say "$(cargo --version), $(cc --version 2>/dev/null | head -n 1), Postgres in $server"
