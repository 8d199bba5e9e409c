#!/bin/bash
# Install what is missing: sourced by the other scripts, or run as
#
#   scripts/deps.sh [build] [test] [lint] [postgres]
#
# Works as root or through sudo, with apt (Debian, Ubuntu) or dnf (Fedora, RHEL). Does nothing,
# not even refresh the package lists, when everything is there. Never lets the distribution make
# or start a server of its own.

DEPS_SCRIPT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/deps.sh
DEPS_ROOT=$(dirname "$(dirname "$DEPS_SCRIPT")")
DEPS_PYTHON=/usr/bin/python3
DEPS_DEBIAN_MIRROR=http://deb.debian.org/debian
DEPS_PGDG_HOST=apt.postgresql.org
DEPS_PGDG_SCRIPT=/usr/share/postgresql-common/pgdg/apt.postgresql.org.sh
PG_OLDEST=15
PG_NEWEST=18
PG_WANTED=17

say() {
    printf '==> %s\n' "$*" >&2
}

die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "needs root to run: $*; hint: install sudo, or run this script as root"
    fi
}

deps_can_be_root() {
    [ "$(id -u)" = 0 ] || command -v sudo >/dev/null
}

deps_manager() {
    if command -v apt-get >/dev/null; then
        echo apt
    elif command -v dnf >/dev/null; then
        echo dnf
    else
        die "neither apt nor dnf on this machine; install by hand what HACKING.md lists"
    fi
}

# --- as root ------------------------------------------------------------------------------------

# PostgreSQL's packages make and start a cluster of their own unless this file says no. Other
# lines of an existing file stay.
deps_no_own_cluster() {
    local file=$1/etc/postgresql-common/createcluster.conf

    mkdir -p "$(dirname "$file")"
    if grep -qsE '^[[:space:]]*create_main_cluster[[:space:]]*=[[:space:]]*(false|no|off|0)' "$file"; then
        return
    fi
    if [ -f "$file" ]; then
        sed -i -E '/^[[:space:]]*create_main_cluster[[:space:]]*=/d' "$file"
    fi
    echo 'create_main_cluster = false' >>"$file"
}

# invoke-rc.d asks this program; 101 means: do not start anything.
deps_deny_starts() {
    local policy=$1/usr/sbin/policy-rc.d

    deps_restore_starts "$1"
    if [ -e "$policy" ]; then
        cp -p "$policy" "$policy.before-pgduet"
    else
        touch "$policy.none-before-pgduet"
    fi
    printf '#!/bin/sh\nexit 101\n' >"$policy.new"
    chmod 755 "$policy.new"
    mv "$policy.new" "$policy"
}

# Also undoes what an install that was killed left behind.
deps_restore_starts() {
    local policy=$1/usr/sbin/policy-rc.d

    if [ -e "$policy.before-pgduet" ]; then
        mv "$policy.before-pgduet" "$policy"
    elif [ -e "$policy.none-before-pgduet" ]; then
        rm -f "$policy" "$policy.none-before-pgduet"
    fi
}

deps_apt_get() {
    DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFOLD=1 apt-get -qq \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@" </dev/null >&2
}

# Runs its arguments while services are not started, one script of ours at a time. A subshell, so
# that the traps are its own.
deps_without_starts() (
    exec 9>/run/lock/pgduet-deps.lock
    flock 9
    deps_no_own_cluster ''
    trap 'deps_restore_starts ""' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    deps_deny_starts '' || exit 1
    "$@"
)

deps_root_install() {
    case $(deps_manager) in
    apt) deps_without_starts deps_apt_get install -y --no-install-recommends "$@" ;;
    dnf) dnf -y install "$@" >&2 ;;
    esac
}

deps_root_pgdg() {
    deps_root_install ca-certificates postgresql-common &&
        deps_without_starts "$DEPS_PGDG_SCRIPT" -y </dev/null >&2
}

# --- packages -----------------------------------------------------------------------------------

# The mirror that this machine's apt uses, if it is a Debian.
deps_debian_mirror() {
    local mirror='' sources=() file

    if grep -qx 'ID=debian' /etc/os-release; then
        shopt -s nullglob
        sources=(/etc/apt/sources.list.d/*.sources)
        if [ ${#sources[@]} -gt 0 ]; then
            mirror=$(for file in "${sources[@]}"; do grep -v '^#' "$file"; echo; done | awk -v RS= '
                /(^|\n)Types:[^\n]*deb/ && !/(^|\n)Suites:[^\n]*security/ && !/(^|\n)Enabled: *no/ &&
                    match($0, /(^|\n)URIs:[ \t]*[^ \t\n]+/) {
                    uri = substr($0, RSTART, RLENGTH)
                    sub(/^\n?URIs:[ \t]*/, "", uri)
                    if (uri ~ /^https?:.*\/debian\/?$/) { print uri; exit }
                }')
        fi
        sources=(/etc/apt/sources.list /etc/apt/sources.list.d/*.list)
        if [ -z "$mirror" ]; then
            mirror=$(sed -nE 's/^deb +(\[[^]]*\] +)?(https?:[^ ]+\/debian\/?) +[^ ]+ .*/\2/p' \
                /dev/null "${sources[@]}" 2>/dev/null | head -n 1 || true)
        fi
    fi
    echo "${mirror:-$DEPS_DEBIAN_MIRROR}"
}

deps_package_missing() {
    case $(deps_manager) in
    apt) [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" != installed ] ;;
    dnf) ! rpm -q --whatprovides "$1" >/dev/null 2>&1 ;;
    esac
}

DEPS_REFRESHED=

deps_refresh() {
    if [ -z "$DEPS_REFRESHED" ] && [ "$(deps_manager)" = apt ]; then
        DEPS_REFRESHED=yes
        say "refreshing the package lists"
        as_root bash "$DEPS_SCRIPT" --as-root deps_apt_get update || say "some lists are not fresh"
    fi
}

# Install those of the packages that are missing.
deps_install() {
    local missing=() package

    for package in "$@"; do
        if deps_package_missing "$package"; then
            missing+=("$package")
        fi
    done
    if [ ${#missing[@]} = 0 ]; then
        return
    fi
    deps_refresh
    say "installing ${missing[*]}"
    as_root bash "$DEPS_SCRIPT" --as-root deps_root_install "${missing[@]}" ||
        die "cannot install ${missing[*]}"
}

deps_build_packages() {
    case $1 in
    apt) echo gcc libc6-dev meson ninja-build pkg-config libjansson-dev libpq-dev libcmocka-dev ;;
    dnf) echo gcc meson ninja-build pkgconf-pkg-config glibc-static jansson-devel libpq-devel \
        libcmocka-devel ;;
    esac
}

deps_test_packages() {
    case $1 in
    apt) echo python3-pytest python3-pytest-xdist python3-psycopg2 openssl procps xz-utils zstd ;;
    dnf) echo python3-pytest python3-pytest-xdist python3-psycopg2 openssl procps-ng xz zstd ;;
    esac
}

# pkg-config is provided by pkgconf in newer distributions; what counts is that it runs.
deps_build() {
    local packages=()

    read -ra packages < <(deps_build_packages "$(deps_manager)")
    if command -v pkg-config >/dev/null; then
        packages=("${packages[@]/#pkg*/}")
    fi
    # shellcheck disable=SC2068 # the emptied entries must vanish
    deps_install ${packages[@]}
}

deps_test() {
    local packages=()

    read -ra packages < <(deps_test_packages "$(deps_manager)")
    deps_install "${packages[@]}"
    "$DEPS_PYTHON" -c 'import pytest, xdist, psycopg2' ||
        die "$DEPS_PYTHON cannot import pytest, xdist and psycopg2"
}

# Formatting differs between versions of clang-format, so it is this version or none.
deps_lint() {
    local packages=() package

    deps_build
    if [ "$(deps_manager)" != apt ]; then
        return
    fi
    for package in shellcheck universal-ctags clang-format-14 clang-tidy-14; do
        if deps_package_missing "$package" && ! command -v "${package#universal-}" >/dev/null; then
            packages+=("$package")
        fi
    done
    if [ ${#packages[@]} = 0 ]; then
        return
    fi
    deps_refresh
    for package in "${packages[@]}"; do
        if deps_available "$package"; then
            deps_install_known "$package"
        fi
    done
}

deps_install_known() {
    say "installing $1"
    as_root bash "$DEPS_SCRIPT" --as-root deps_root_install "$1" || die "cannot install $1"
}

# --- PostgreSQL ---------------------------------------------------------------------------------

# "MAJOR BINDIR" of each installed version that we support, newest first.
pg_installed() {
    local postgres major

    for postgres in /usr/lib/postgresql/*/bin/postgres /usr/pgsql-*/bin/postgres /usr/bin/postgres; do
        if [ ! -x "$postgres" ] || [ ! -x "$(dirname "$postgres")/initdb" ]; then
            continue
        fi
        major=$("$postgres" --version 2>/dev/null | sed -nE 's/^postgres \(PostgreSQL\) ([0-9]+).*/\1/p')
        if [ -n "$major" ] && [ "$major" -ge "$PG_OLDEST" ] && [ "$major" -le "$PG_NEWEST" ]; then
            echo "$major $(dirname "$postgres")"
        fi
    done | sort -rn -k1,1
}

pg_newest() {
    pg_installed | sed -n '1s/ .*//p'
}

pg_newest_bindir() {
    pg_installed | sed -n '1s/^[0-9]* //p'
}

deps_available() {
    case $(deps_manager) in
    apt) [[ $(LC_ALL=C apt-cache policy "$1" 2>/dev/null) =~ Candidate:\ [^\(] ]] ;;
    dnf) dnf -q list --available "$1" >/dev/null 2>&1 ;;
    esac
}

# The newest that the distribution has, or nothing.
pg_in_distribution() {
    local major

    for major in $(seq "$PG_NEWEST" -1 "$PG_OLDEST"); do
        if deps_available "$(pg_package "$major")"; then
            echo "$major"
            return
        fi
    done
}

pg_package() {
    case $(deps_manager) in
    apt) echo "postgresql-$1" ;;
    dnf) echo "postgresql$1-server" ;;
    esac
}

# Does the PostgreSQL project's repository have this distribution, and answer within 5 seconds?
pgdg_answers() {
    local codename

    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    if [ "$(deps_manager)" != apt ] || [ -z "$codename" ]; then
        return 1
    fi
    # shellcheck disable=SC2016 # the inner shell expands them
    timeout 5 bash -c '
        exec 3<>"/dev/tcp/$1/80" || exit 1
        printf "HEAD /pub/repos/apt/dists/%s-pgdg/Release HTTP/1.0\r\nHost: %s\r\n\r\n" "$2" "$1" >&3
        read -r _ status _ <&3
        [[ $status == [23]?? ]]
    ' bash "$DEPS_PGDG_HOST" "$codename" 2>/dev/null
}

# Where looking further was in vain, do not look again at every run.
deps_stamp_is_fresh() {
    local stamp=$DEPS_ROOT/build/postgresql-checked

    [ -n "$(find "$stamp" -mmin -1440 2>/dev/null)" ] && [ "$(cat "$stamp")" = "$1" ]
}

deps_write_stamp() {
    mkdir -p "$DEPS_ROOT/build"
    echo "$1" >"$DEPS_ROOT/build/postgresql-checked"
}

pg_install() {
    deps_install_known "$(pg_package "$1")"
    if [ "$(pg_newest)" != "$1" ]; then
        die "the package $(pg_package "$1") has no usable server"
    fi
}

# Says which version is used and why.
deps_postgres() {
    local installed available

    installed=$(pg_newest)
    if [ "${installed:-0}" -ge "$PG_WANTED" ]; then
        say "PostgreSQL $installed: the newest installed"
        return
    fi
    if [ -n "$installed" ] && deps_stamp_is_fresh "$installed"; then
        say "PostgreSQL $installed: installed, and a newer one is not available"
        return
    fi
    if [ -n "$installed" ] && ! deps_can_be_root; then
        say "PostgreSQL $installed: the newest installed; looking for another needs root or sudo"
        return
    fi
    deps_refresh
    available=$(pg_in_distribution)
    if deps_available "$(pg_package "$PG_WANTED")"; then
        available=$PG_WANTED
    fi
    if [ "${available:-0}" -ge "$PG_WANTED" ]; then
        say "PostgreSQL $available: from the distribution"
        pg_install "$available"
    elif deps_postgres_from_project; then
        return
    elif [ -n "$installed" ]; then
        say "PostgreSQL $installed: installed; the distribution has no $PG_WANTED, and" \
            "$DEPS_PGDG_HOST cannot be used"
        deps_write_stamp "$installed"
    elif [ -n "$available" ]; then
        say "PostgreSQL $available: the distribution's; it has no $PG_WANTED, and" \
            "$DEPS_PGDG_HOST cannot be used"
        pg_install "$available"
        deps_write_stamp "$available"
    elif [ "$(deps_manager)" = dnf ]; then
        say "PostgreSQL: the distribution's"
        deps_install postgresql-server
    else
        die "no PostgreSQL $PG_OLDEST to $PG_NEWEST: the distribution has none, and" \
            "$DEPS_PGDG_HOST cannot be used"
    fi
}

deps_postgres_from_project() {
    if ! pgdg_answers; then
        return 1
    fi
    say "PostgreSQL $PG_WANTED: from $DEPS_PGDG_HOST, because the distribution has none"
    if as_root bash "$DEPS_SCRIPT" --as-root deps_root_pgdg &&
        deps_available "$(pg_package "$PG_WANTED")"; then
        pg_install "$PG_WANTED"
        return
    fi
    say "$DEPS_PGDG_HOST answers, but has no PostgreSQL $PG_WANTED for this machine"
    return 1
}

# --- build --------------------------------------------------------------------------------------

# deps_compile DIR MESON-OPTION...
deps_compile() {
    local dir=$1 output

    shift
    if [ ! -f "$dir/build.ninja" ]; then
        output=$(meson setup "$dir" "$DEPS_ROOT" "$@" 2>&1) || die "meson setup $dir failed: $output"
    fi
    ninja -C "$dir" --quiet 2>&1 | { grep -v '^ninja: no work' || true; } >&2 ||
        die "the build in $dir failed"
}

deps_main() {
    set -euo pipefail
    if [ "${1:-}" = --as-root ]; then
        shift
        "$@"
        return
    fi
    for part in "$@"; do
        case $part in
        build | test | lint | postgres) "deps_$part" ;;
        *) die "unknown part '$part'; usage: deps.sh [build] [test] [lint] [postgres]" ;;
        esac
    done
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    deps_main "$@"
fi
