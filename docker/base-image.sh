#!/bin/bash
# Make the image debian:trixie-slim available where no image registry answers, by debootstrap.
#
#   docker/base-image.sh [--air-gapped] [--force]
#
# Does nothing where the engine has the image. Otherwise tries to pull it, and where that fails builds
# one like it from Debian's packages, as root, with every signature checked by debootstrap and apt.
#
# --air-gapped   do not try to pull
# --force        build even where the image exists or could be pulled
#
# MIRROR=URL     the package mirror, by default http://deb.debian.org/debian
set -euo pipefail

SUITE=trixie
IMAGE=debian:$SUITE-slim
MIRROR=${MIRROR:-http://deb.debian.org/debian}
MIRROR=${MIRROR%/}
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
PULL_SECONDS=60
ENGINE_SECONDS=20

say() {
    printf '==> %s\n' "$*" >&2
}

die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

usage() {
    sed -n '2,/^set -/{/^set -/!s/^# \{0,1\}//p}' "$0"
}

# --- what is needed -----------------------------------------------------------------------------

need_engine() {
    local answer

    command -v docker >/dev/null ||
        die "no program 'docker' on this machine; hint: install Docker," \
            "or as root on Debian: scripts/docker.sh engine"
    answer=$(timeout "$ENGINE_SECONDS" docker version --format '{{.Server.Version}}' 2>&1 >/dev/null) ||
        die "no Docker engine answers: ${answer%%$'\n'*}; hint: start it," \
            "or as root on Debian: scripts/docker.sh engine"
}

need_debootstrap() {
    [ "$(id -u)" = 0 ] ||
        die "cannot build $IMAGE: debootstrap needs root; hint: run this script as root," \
            "or bring the image with 'docker save' and 'docker load'"
    if ! command -v debootstrap >/dev/null || [ ! -e "$KEYRING" ]; then
        command -v apt-get >/dev/null ||
            die "cannot build $IMAGE: debootstrap or $KEYRING is missing;" \
                "hint: install debootstrap and debian-archive-keyring"
        say "installing debootstrap"
        apt-get -qq update || say "some package lists are not fresh"
        DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
            install -y --no-install-recommends debootstrap debian-archive-keyring </dev/null >&2 ||
            die "cannot install debootstrap; hint: install it and debian-archive-keyring by hand"
    fi
    unshare --mount --propagation private true 2>/dev/null ||
        die "cannot build $IMAGE: this machine does not permit mounts;" \
            "hint: build it on another one and bring it with 'docker save' and 'docker load'"
}

image_exists() {
    docker image inspect "$IMAGE" >/dev/null 2>&1
}

pull() {
    say "pulling $IMAGE"
    timeout "$PULL_SECONDS" docker pull --quiet "$IMAGE" >/dev/null 2>&1
}

# --- the root file system -----------------------------------------------------------------------

in_root() {
    # shellcheck disable=SC2016 # the inner shell expands them
    unshare --mount --pid --fork --kill-child --propagation private bash -c '
        set -e
        mount -t proc proc "$1/proc"
        exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
            ${http_proxy:+"http_proxy=$http_proxy"} ${https_proxy:+"https_proxy=$https_proxy"} \
            chroot "$@"
    ' bash "$ROOT" "$@" </dev/null >&2
}

bootstrap() {
    local script=/usr/share/debootstrap/scripts/$SUITE

    # An older debootstrap does not know the suite by name; all newer ones are made in one way.
    if [ ! -e "$script" ]; then
        script=/usr/share/debootstrap/scripts/sid
    fi
    say "building $IMAGE from $MIRROR"
    debootstrap --variant=minbase --keyring="$KEYRING" "$SUITE" "$ROOT" "$MIRROR" "$script" \
        >"$WORK/debootstrap.log" 2>&1 ||
        die "debootstrap from $MIRROR failed: $(tail -n 1 "$WORK/debootstrap.log");" \
            "hint: set MIRROR to a package mirror that this machine reaches"
}

# As in the official image: no daemon starts, no documentation but licences, nothing is kept of what
# apt downloads. Packages that are installed later follow the same rules.
configure() {
    printf '#!/bin/sh\nexit 101\n' >"$ROOT/usr/sbin/policy-rc.d"
    chmod 755 "$ROOT/usr/sbin/policy-rc.d"
    cat >"$ROOT/etc/dpkg/dpkg.cfg.d/docker" <<-'END'
		path-exclude /usr/share/doc/*
		path-include /usr/share/doc/*/copyright
		path-exclude /usr/share/groff/*
		path-exclude /usr/share/info/*
		path-exclude /usr/share/linda/*
		path-exclude /usr/share/lintian/*
		path-exclude /usr/share/locale/*
		path-include /usr/share/locale/locale.alias
		path-exclude /usr/share/man/*
	END
    echo force-unsafe-io >"$ROOT/etc/dpkg/dpkg.cfg.d/docker-apt-speedup"
    cat >"$ROOT/etc/apt/apt.conf.d/docker-clean" <<-'END'
		DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb || true"; };
		Dir::Cache::pkgcache "";
		Dir::Cache::srcpkgcache "";
		Acquire::GzipIndexes "true";
		Acquire::Languages "none";
		Apt::AutoRemove::SuggestsImportant "false";
	END
}

# write_sources [SECURITY-MIRROR]
write_sources() {
    rm -f "$ROOT/etc/apt/sources.list"
    {
        printf 'Types: deb\nURIs: %s\nSuites: %s %s-updates\nComponents: main\nSigned-By: %s\n' \
            "$MIRROR" "$SUITE" "$SUITE" "$KEYRING"
        if [ -n "${1:-}" ]; then
            printf '\nTypes: deb\nURIs: %s\nSuites: %s-security\nComponents: main\nSigned-By: %s\n' \
                "$1" "$SUITE" "$KEYRING"
        fi
    } >"$ROOT/etc/apt/sources.list.d/debian.sources"
}

refresh() {
    in_root apt-get -qq -o APT::Update::Error-Mode=any -o Acquire::Retries=1 -o Acquire::http::Timeout=15 \
        update >"$WORK/update.log" 2>&1
}

# Security fixes where this machine reaches them: beside the mirror, or at their usual place.
upgrade() {
    local security

    for security in "$MIRROR-security" http://deb.debian.org/debian-security ''; do
        write_sources "$security"
        if refresh; then
            break
        fi
        if [ -z "$security" ]; then
            die "cannot read the package lists of $MIRROR: $(grep -m 1 '^E:' "$WORK/update.log" || true)"
        fi
    done
    if [ -z "$security" ]; then
        say "no mirror of $SUITE-security answers: the image goes without it"
    fi
    in_root apt-get -qq -o Dpkg::Use-Pty=0 dist-upgrade -y || die "cannot upgrade the packages of $IMAGE"
}

slim() {
    in_root apt-get clean
    find "$ROOT/usr/share/doc" ! -type d ! -name copyright -delete
    find "$ROOT/usr/share/doc" -type d -empty -delete
    find "$ROOT"/usr/share/{man,info,lintian,linda,groff} ! -type d -delete 2>/dev/null || true
    find "$ROOT/usr/share/locale" ! -type d ! -name locale.alias -delete
    find "$ROOT/usr/share/locale" -mindepth 1 -type d -empty -delete
    find "$ROOT/var/lib/apt/lists" "$ROOT/var/cache/apt" "$ROOT/var/cache/debconf" "$ROOT/var/log" \
        "$ROOT/tmp" "$ROOT/run" ! -type d ! -name config.dat ! -name templates.dat -delete
    rm -f "$ROOT/etc/resolv.conf" "$ROOT/etc/hostname" "$ROOT/var/lib/dpkg/available" \
        "$ROOT/var/cache/ldconfig/aux-cache"
    : >"$ROOT/etc/machine-id"
}

import() {
    tar -C "$ROOT" --numeric-owner --one-file-system --exclude='./dev/*' --exclude='./proc/*' \
        --exclude='./sys/*' -cf - . |
        docker import --change 'CMD ["bash"]' - "$IMAGE" >/dev/null ||
        die "the engine did not take $IMAGE"
}

build() {
    need_debootstrap
    WORK=$(mktemp -d "${TMPDIR:-/var/tmp}/pgduet-base.XXXXXX")
    ROOT=$WORK/root
    # Nothing is mounted in it: the mounts were in a namespace that has ended.
    trap 'rm -rf --one-file-system "$WORK"' EXIT
    mkdir "$ROOT"
    chmod 755 "$ROOT"
    bootstrap
    configure
    upgrade
    slim
    import
    say "built $IMAGE, $(docker image inspect --format '{{.Size}}' "$IMAGE" | numfmt --to=si)B"
}

main() {
    local air_gapped='' force=''

    while [ $# -gt 0 ]; do
        case $1 in
        --air-gapped) air_gapped=yes ;;
        --force) force=yes ;;
        -h | --help)
            usage
            exit
            ;;
        *) die "unknown argument '$1'; usage: $0 [--air-gapped] [--force]" ;;
        esac
        shift
    done
    need_engine
    if [ -z "$force" ]; then
        if image_exists; then
            say "the engine has $IMAGE"
            return
        fi
        if [ -z "$air_gapped" ] && pull; then
            return
        fi
    fi
    build
}

main "$@"
