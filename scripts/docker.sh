#!/bin/bash
# Have Docker, Compose v2 and the image pgduet:17 on this machine, for the tests and for CI.
#
#   scripts/docker.sh engine   an engine that answers, and Compose v2
#   scripts/docker.sh image    the same, the base image, and pgduet:17 built from this clone
#
# Installs and starts what is missing, which needs root and Debian. Where an engine cannot be had, it
# prints why in one line and ends with status 77.
#
# MIRROR=URL          Debian's package mirror, by default the one that apt uses here
# PGDUET_IMAGE=NAME   what to call the image, by default pgduet:17
set -euo pipefail

ROOT=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/deps.sh
. "$ROOT/scripts/deps.sh"

IMAGE=${PGDUET_IMAGE:-pgduet:17}
ENGINE_LOG=/var/log/pgduet-dockerd.log
ENGINE_SECONDS=60
LOCK=/run/lock/pgduet-docker.lock
PLUGIN=/usr/local/lib/docker/cli-plugins/docker-compose
# Debian 12 has no Compose v2. Debian 13's is a single file that needs nothing but libc, of no newer version.
PLUGIN_SUITE=trixie
PLUGIN_FILE=usr/libexec/docker/cli-plugins/docker-compose
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

usage() {
    sed -n '2,/^set -/{/^set -/!s/^# \{0,1\}//p}' "$0"
}

cannot() {
    printf '%s: no Docker engine: %s\n' "$(basename "$0")" "$*" >&2
    exit 77
}

# --- engine -------------------------------------------------------------------------------------

engine_answers() {
    command -v docker >/dev/null && timeout 20 docker info >/dev/null 2>&1
}

compose_answers() {
    timeout 20 docker compose version >/dev/null 2>&1
}

need_debian_root() {
    if [ "$(id -u)" != 0 ]; then
        cannot "$1, and only root can change that; hint: start this script as root"
    fi
    if [ "$(. /etc/os-release && echo "$ID")" != debian ]; then
        cannot "$1, and this script can change that on Debian only; hint: install Docker by hand"
    fi
}

install_engine() {
    local packages=() package

    if PATH=$PATH:/usr/sbin command -v dockerd >/dev/null && command -v docker >/dev/null; then
        return
    fi
    # The client has a package of its own in newer releases.
    deps_refresh
    for package in docker.io docker-cli; do
        if deps_available "$package"; then
            packages+=("$package")
        fi
    done
    (deps_install "${packages[@]}") || cannot "docker.io cannot be installed"
}

# Under systemd it is a service as any other; elsewhere, as in most CI containers, a process of its own
# that outlives this script.
start_engine() {
    ENGINE_PID=
    if [ -d /run/systemd/system ]; then
        say "starting docker.service"
        systemctl start docker.service || cannot "docker.service does not start"
        return
    fi
    say "starting dockerd, log in $ENGINE_LOG"
    PATH=$PATH:/usr/sbin:/sbin setsid dockerd </dev/null >>"$ENGINE_LOG" 2>&1 8>&- &
    ENGINE_PID=$!
}

await_engine() {
    local deadline=$((SECONDS + ENGINE_SECONDS))

    until engine_answers; do
        if [ -n "$ENGINE_PID" ] && ! kill -0 "$ENGINE_PID" 2>/dev/null; then
            cannot "dockerd ended: $(tail -n 1 "$ENGINE_LOG")"
        fi
        if [ "$SECONDS" -ge "$deadline" ]; then
            cannot "dockerd does not answer within $ENGINE_SECONDS s"
        fi
        sleep 0.2
    done
}

have_engine() {
    if engine_answers; then
        return
    fi
    if [ -n "${DOCKER_HOST:-}" ]; then
        cannot "the one at DOCKER_HOST=$DOCKER_HOST does not answer"
    fi
    need_debian_root "none answers"
    install_engine
    start_engine
    await_engine
}

# --- Compose ------------------------------------------------------------------------------------

# apt with lists and sources of its own, which checks every signature.
apt_of_suite() {
    local dir=$1

    shift
    apt-get -qq -o Dir::State::lists="$dir/lists" -o Dir::Cache="$dir/cache" \
        -o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o APT::Sandbox::User=root -o APT::Update::Error-Mode=any "$@" >&2
}

fetch_plugin() (
    set -euo pipefail
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/package"
    printf 'deb [signed-by=%s] %s %s main\n' "$KEYRING" "${MIRROR:-$(deps_debian_mirror)}" "$PLUGIN_SUITE" \
        >"$dir/sources.list"
    apt_of_suite "$dir" update
    cd "$dir"
    apt_of_suite "$dir" download "docker-compose/$PLUGIN_SUITE"
    dpkg-deb --extract "$dir"/docker-compose_*.deb "$dir/package"
    install -D "$dir/package/$PLUGIN_FILE" "$PLUGIN.new"
    mv "$PLUGIN.new" "$PLUGIN"
)

have_compose() {
    if compose_answers; then
        return
    fi
    need_debian_root "Compose v2 is missing"
    deps_refresh
    if [[ $(LC_ALL=C apt-cache policy docker-compose) =~ Candidate:\ 1\. ]]; then
        say "installing Compose v2 from Debian $PLUGIN_SUITE in $PLUGIN"
        (deps_install debian-archive-keyring)
        # Not in a condition, where bash would not stop it at its first error.
        set +e
        fetch_plugin
        set -e
    else
        (deps_install docker-compose) || true
    fi
    compose_answers || cannot "Compose v2 cannot be installed"
}

# --- image --------------------------------------------------------------------------------------

build_image() {
    MIRROR=${MIRROR:-$(deps_debian_mirror)} "$ROOT/docker/base-image.sh"
    say "building $IMAGE"
    docker build -f "$ROOT/docker/Dockerfile" -t "$IMAGE" "$ROOT" >&2
}

main() {
    local what=${1:-}

    case $what in
    engine | image) ;;
    -h | --help)
        usage
        exit
        ;;
    *) die "unknown argument '$what'; usage: $0 engine|image" ;;
    esac
    # One installation at a time; others than root install nothing.
    if [ "$(id -u)" = 0 ]; then
        exec 8>"$LOCK"
        flock 8
    fi
    have_engine
    have_compose
    if [ "$what" = image ]; then
        build_image
    fi
}

main "$@"
