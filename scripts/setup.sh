#!/usr/bin/env bash
# Installs what is missing of the things named: redis postgres pgbouncer python package rustfmt clippy.
# `python` is a client for the Rust tests, `package` all that the Python package's own build and tests need.
# Says nothing when nothing is missing. Starts no server, and leaves running ones alone.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=target/python
policy=/usr/sbin/policy-rc.d
redis=${BIFROST_TEST_REDIS_SERVER:-redis-server}

say() { echo "setup: $*"; }
fail() {
    say "$@" >&2
    exit 1
}
has() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null; }

has_postgres() {
    local server
    for server in "${BIFROST_TEST_PG_BIN:-}"/postgres /usr/lib/postgresql/*/bin/postgres; do
        [ ! -x "$server" ] || return 0
    done
    has postgres && has initdb
}

# Older ones, such as that of Ubuntu 22.04, lack commands.
check_redis() {
    local version
    version=$(PATH="$PATH:/usr/sbin:/sbin" "$redis" --version | grep -oE '[0-9]+\.[0-9.]+' | head -n 1) ||
        return 0
    printf '%s\n' 6.2 "$version" | sort -V -C ||
        fail "$redis is version $version, and 6.2 or later is needed, as in Debian 12 and" \
            "Ubuntu 24.04; BIFROST_TEST_REDIS_SERVER may name another one"
}

# The same candidates as in tests/support/python.rs.
has_redis_py() {
    local python
    for python in "${BIFROST_TEST_PYTHON:-$venv/bin/python3}" python3 /usr/bin/python3; do
        ! "$python" -c 'import redis' 2>/dev/null || return 0
    done
    return 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        has sudo || fail "root is needed to install packages, and there is no sudo"
        sudo "$@"
    fi
}

# Debian starts a server as soon as its package is installed; it asks this file first.
forbid_start() {
    [ ! -e "$policy" ] || return 0
    trap 'as_root rm -f "$policy"' EXIT
    as_root sh -c "printf '#!/bin/sh\nexit 101\n' >'$policy' && chmod 755 '$policy'"
}

install_packages() {
    local why=$1
    shift
    if ! has apt-get; then
        fail "$why. Please install what is missing of: redis-server (6.2 or later)," \
            "postgresql (13 or later), pgbouncer, and python3 with the module redis"
    fi
    say "$why: installing the Debian packages $*"
    forbid_start
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends --no-upgrade "$@" >/dev/null
}

pip_install() { "$venv/bin/python3" -m pip install --quiet --disable-pip-version-check "$@"; }

create_venv() {
    mkdir -p target
    python3 -m venv --clear "$venv" >/dev/null 2>&1
}

provide_python() {
    if has python3; then
        say "tests speak with Python clients: creating $venv with the module redis of PyPI"
        ! { create_venv && pip_install 'redis>=5'; } || return 0
        rm -rf "$venv"
    fi
    install_packages "there is no Python with the module redis" python3 python3-redis
    has_redis_py || fail "python3 still can't import redis"
}

# The list of what is installed is kept beside it: when it changes, the new one is.
requirements=python/requirements.txt
has_package() { cmp -s "$requirements" "$venv/requirements.txt"; }

is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

provide_package() {
    if ! [ -x "$venv/bin/pip" ] || ! is_recent "$venv/bin/python3"; then
        say "the Python package is built and tested in an environment of its own: creating $venv"
        if ! is_recent python3 || ! create_venv; then
            install_packages "there is no Python with the module venv" python3 python3-venv
            is_recent python3 || fail "python3 is older than 3.11, which the Python package needs"
            create_venv || fail "python3 still can't create $venv"
        fi
    fi
    say "installing $requirements into $venv"
    pip_install -r "$requirements" || fail "pip could not install $requirements"
    cp "$requirements" "$venv/requirements.txt"
}

has cargo || fail "there is no Rust toolchain: see https://rustup.rs"
has cc || fail "there is no C compiler, which Rust links with: apt-get install build-essential"

packages=()
want_python=
want_package=
for thing in "$@"; do
    case $thing in
        redis) has "$redis" || packages+=(redis-server) ;;
        postgres) has_postgres || packages+=(postgresql) ;;
        pgbouncer) has pgbouncer || packages+=(pgbouncer) ;;
        python) want_python=yes ;;
        package) want_package=yes ;;
        rustfmt)
            cargo fmt --version >/dev/null 2>&1 ||
                fail "rustfmt is missing: rustup component add rustfmt"
            ;;
        clippy)
            cargo clippy --version >/dev/null 2>&1 ||
                fail "clippy is missing: rustup component add clippy"
            ;;
        *) fail "unknown: $thing" ;;
    esac
done

if [ ${#packages[@]} -gt 0 ]; then
    install_packages "tests and demo start servers of their own, and some are missing" "${packages[@]}"
fi
case " $* " in *" redis "*) check_redis ;; esac
if [ -n "$want_package" ] && ! has_package; then
    provide_package
fi
if [ -n "$want_python" ] && ! has_redis_py; then
    provide_python
fi
