#!/bin/bash
# Build and run all tests; install what is missing for that.
#
#   scripts/test.sh [unit|e2e|pg17|docker] [-k EXPRESSION]
#
# unit   the unit tests, plain and with the address and undefined behaviour sanitizers
# e2e    the end-to-end tests on the newest PostgreSQL of this machine
# pg17   the same on PostgreSQL 17 in a Debian 13 root, where this machine has none >= 17 (as root)
# docker the Compose deployment: its README's commands, scripts, failures, environments
#
# Without a part, all of them. -k goes to pytest. The last line is "N passed, N failed, N skipped".
# With CI=true compiler warnings are errors, and neither pg17 nor docker may be skipped.
set -euo pipefail

ROOT=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/deps.sh
. "$ROOT/scripts/deps.sh"

RESULTS=$ROOT/build/test-results
DEBIAN_SUITE=trixie
DEBIAN_ROOT=/var/cache/pgduet/$DEBIAN_SUITE
DEBIAN_KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
WORKERS=4
DOCKER_WORKERS=2

usage() {
    sed -n '2,/^set -/s/^# \{0,1\}//p' "$0"
}

is_ci() {
    [ "${CI:-}" = true ]
}

# --- parts --------------------------------------------------------------------------------------

# Each part leaves its results in $RESULTS and its entry in COUNTED.
COUNTED=()

compile() {
    local dir=$1 werror=()

    shift
    if is_ci; then
        werror=(--werror)
    fi
    say "building $dir"
    deps_compile "$ROOT/$dir" "$@" "${werror[@]}"
}

run_unit_in() {
    local result=$RESULTS/$1.json

    say "unit tests in $1"
    rm -f "$ROOT/$1/meson-logs/testlog.json"
    meson test -C "$ROOT/$1" --print-errorlogs --quiet >&2 || say "unit tests failed"
    cp "$ROOT/$1/meson-logs/testlog.json" "$result" || true
    COUNTED+=("unit tests ($1)=$result")
}

run_unit() {
    compile build-asan --buildtype=debug -Db_sanitize=address,undefined -Db_lundef=false
    run_unit_in build
    ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
        run_unit_in build-asan
}

pytest_arguments() {
    printf '%s\n' -m pytest -q -p no:cacheprovider -n "${2:-$WORKERS}" --junitxml="$1"
    if [ -n "$EXPRESSION" ]; then
        printf '%s\n' -k "$EXPRESSION"
    fi
}

run_e2e() {
    local result=$RESULTS/e2e.xml arguments

    say "end-to-end tests on PostgreSQL $(pg_newest)"
    mapfile -t arguments < <(pytest_arguments "$result")
    (cd "$ROOT/tests/e2e" &&
        PYTHONDONTWRITEBYTECODE=1 PGDUET_BUILD=$ROOT/build "$DEPS_PYTHON" "${arguments[@]}" >&2) ||
        say "end-to-end tests ended with status $?"
    COUNTED+=("end-to-end tests (PostgreSQL $(pg_newest))=$result")
}

# --- PostgreSQL 17 in a Debian root -------------------------------------------------------------

debian_packages() {
    deps_build_packages apt
    deps_test_packages apt
    echo postgresql-17
}

debian_marker() {
    echo "$DEBIAN_ROOT/complete-$(debian_packages | sha256sum | cut -c1-12)"
}

# in_debian COMMAND...: with /proc, /dev and shared memory of its own. The namespaces end with the
# command, however it ends, and with them the mounts and every process that was left behind. The
# shell stays as their process 1, which reaps.
in_debian() {
    # shellcheck disable=SC2016 # the inner shell expands them
    unshare --mount --pid --fork --kill-child --propagation private bash -c '
        set -e
        root=$1
        shift
        mount --rbind /dev "$root/dev"
        mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
        mount -t proc proc "$root/proc"
        status=0
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
            DEBIAN_FRONTEND=noninteractive CI="${CI:-}" PYTHONDONTWRITEBYTECODE=1 \
            chroot "$root" "$@" || status=$?
        exit "$status"
    ' bash "$DEBIAN_ROOT" "$@"
}

debian_bootstrap() {
    local script=/usr/share/debootstrap/scripts/$DEBIAN_SUITE

    if [ ! -e "$script" ]; then
        script=/usr/share/debootstrap/scripts/sid
    fi
    debootstrap --variant=minbase --include=ca-certificates --keyring="$DEBIAN_KEYRING" \
        "$DEBIAN_SUITE" "$DEBIAN_ROOT" "$(deps_debian_mirror)" "$script"
}

debian_fill() {
    local packages

    mapfile -t packages < <(debian_packages | tr ' ' '\n')
    apt-config dump | grep -iE '^Acquire::https?::Proxy' >"$DEBIAN_ROOT/etc/apt/apt.conf.d/90host" ||
        true
    deps_no_own_cluster "$DEBIAN_ROOT"
    deps_deny_starts "$DEBIAN_ROOT"
    in_debian apt-get -qq update
    in_debian apt-get -qq -o Dpkg::Use-Pty=0 install -y --no-install-recommends "${packages[@]}"
    in_debian apt-get clean
}

# Made once and kept; made anew when it was interrupted or needs other packages.
debian_make() (
    set -euo pipefail
    mkdir -p "$(dirname "$DEBIAN_ROOT")"
    exec 8>"$DEBIAN_ROOT.lock"
    flock 8
    if [ -e "$(debian_marker)" ]; then
        return
    fi
    rm -rf --one-file-system "$DEBIAN_ROOT"
    debian_bootstrap
    debian_fill
    touch "$(debian_marker)"
)

# Whole, since the root serves all clones and time stamps of one say nothing about another's.
debian_copy_sources() {
    local target=$DEBIAN_ROOT/src/pgduet

    rm -rf "$DEBIAN_ROOT"/tmp/pgduet-* "$target"
    mkdir -p "$target"
    tar -C "$ROOT" --exclude=./.git --exclude='./build*' --exclude=./cluster -cf - . |
        tar -C "$target" --no-same-owner -xf -
}

debian_run() (
    set -euo pipefail
    exec 8>"$DEBIAN_ROOT.lock"
    flock 8
    debian_copy_sources || exit 1
    mapfile -t arguments < <(pytest_arguments /src/pgduet/build/e2e.xml)
    in_debian bash -c '
        set -e
        cd /src/pgduet
        meson setup build >/dev/null
        ninja -C build --quiet
        cd tests/e2e
        python3 "$@"
    ' bash "${arguments[@]}" || say "end-to-end tests ended with status $?"
    cp "$DEBIAN_ROOT/src/pgduet/build/e2e.xml" "$RESULTS/pg17.xml"
)

# Why the part cannot run here, or nothing.
debian_obstacle() {
    if [ "$(id -u)" != 0 ]; then
        echo "not root, which debootstrap and chroot need"
    elif ! unshare --mount --pid --fork --propagation private true 2>/dev/null; then
        echo "this machine does not permit mounts in a namespace"
    elif [ "$(deps_manager)" != apt ]; then
        echo "no debootstrap for this distribution"
    elif ! (deps_install debootstrap debian-archive-keyring); then
        echo "debootstrap cannot be installed"
    fi
}

skip_pg17() {
    if is_ci; then
        say "the end-to-end tests on PostgreSQL 17 must run in CI: $1"
        COUNTED+=("end-to-end tests (PostgreSQL 17)=$RESULTS/pg17.xml")
        return
    fi
    echo "end-to-end tests on PostgreSQL 17: $1" >"$RESULTS/pg17.skip"
    COUNTED+=("end-to-end tests (PostgreSQL 17)=$RESULTS/pg17.skip")
}

# The root is made while the other parts run.
DEBIAN_MAKER=
DEBIAN_OBSTACLE=

start_pg17() {
    DEBIAN_OBSTACLE=$(debian_obstacle)
    if [ -z "$DEBIAN_OBSTACLE" ] && [ ! -e "$(debian_marker)" ]; then
        say "making a Debian root for PostgreSQL 17 in $DEBIAN_ROOT"
        debian_make >"$RESULTS/debian.log" 2>&1 &
        DEBIAN_MAKER=$!
    fi
}

run_pg17() {
    if [ -n "$DEBIAN_OBSTACLE" ]; then
        skip_pg17 "$DEBIAN_OBSTACLE"
        return
    fi
    if [ -n "$DEBIAN_MAKER" ] && ! wait "$DEBIAN_MAKER"; then
        DEBIAN_MAKER=
        tail -n 20 "$RESULTS/debian.log" >&2
        skip_pg17 "the Debian root could not be made"
        return
    fi
    DEBIAN_MAKER=
    say "end-to-end tests on PostgreSQL 17 in $DEBIAN_ROOT"
    debian_run >&2 || say "the tests in $DEBIAN_ROOT did not run"
    COUNTED+=("end-to-end tests (PostgreSQL 17)=$RESULTS/pg17.xml")
}

# --- Docker -------------------------------------------------------------------------------------

# Engine and image are made while the other parts run.
DOCKER_MAKER=

start_docker() {
    say "making Docker and the image ready"
    nice "$ROOT/scripts/docker.sh" image >"$RESULTS/docker.log" 2>&1 </dev/null &
    DOCKER_MAKER=$!
}

run_docker() {
    local status=0 result=$RESULTS/docker.xml arguments

    wait "$DOCKER_MAKER" || status=$?
    DOCKER_MAKER=
    if [ "$status" != 0 ]; then
        tail -n 20 "$RESULTS/docker.log" >&2
    fi
    if [ "$status" = 77 ] && ! is_ci; then
        tail -n 1 "$RESULTS/docker.log" >"$RESULTS/docker.skip"
        result=$RESULTS/docker.skip
    elif [ "$status" = 0 ]; then
        say "tests of the Compose deployment"
        mapfile -t arguments < <(pytest_arguments "$result" "$DOCKER_WORKERS")
        (cd "$ROOT/tests/docker" &&
            PYTHONDONTWRITEBYTECODE=1 "$DEPS_PYTHON" "${arguments[@]}" >&2) ||
            say "tests of the Compose deployment ended with status $?"
    fi
    COUNTED+=("Compose deployment=$result")
}

stop_makers() {
    local maker

    for maker in $DEBIAN_MAKER $DOCKER_MAKER; do
        kill "$maker" 2>/dev/null || true
    done
}

# --- main ---------------------------------------------------------------------------------------

PART=all
EXPRESSION=

read_arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
        unit | e2e | pg17 | docker) PART=$1 ;;
        -k)
            EXPRESSION=${2:?-k needs an expression}
            shift
            ;;
        -h | --help)
            usage
            exit
            ;;
        *) die "unknown argument '$1'; usage: $0 [unit|e2e|pg17|docker] [-k EXPRESSION]" ;;
        esac
        shift
    done
}

wants() {
    [ "$PART" = all ] || [ "$PART" = "$1" ]
}

# Asked for by name, it runs in any case.
wants_pg17() {
    [ "$PART" = pg17 ] || { [ "$PART" = all ] && [ "$(pg_newest)" -lt "$PG_WANTED" ]; }
}

main() {
    read_arguments "$@"
    deps_build
    deps_test
    deps_postgres
    rm -rf "$RESULTS"
    mkdir -p "$RESULTS"
    trap stop_makers EXIT
    if wants docker; then
        start_docker
    fi
    if wants_pg17; then
        start_pg17
    fi
    if wants unit || wants e2e; then
        compile build
    fi
    if wants unit; then
        run_unit
    fi
    if wants e2e; then
        run_e2e
    fi
    if wants_pg17; then
        run_pg17
    fi
    if wants docker; then
        run_docker
    fi
    "$DEPS_PYTHON" "$ROOT/scripts/count_results.py" "${COUNTED[@]}"
}

main "$@"
