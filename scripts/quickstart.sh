#!/bin/bash
# From nothing to a running primary and replica, an application user, and the URLs to connect.
# Harmless and quick when it is run again.
#
#   scripts/quickstart.sh
#   PORT=15432 MEMORY=2GB scripts/quickstart.sh
#
# PORT is the port for writes (default 5432), PORT + 1 the one for reads; MEMORY as in `pgduet init`.
set -euo pipefail

ROOT=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/deps.sh
. "$ROOT/scripts/deps.sh"

USER_NAME=app_user
SCHEMA=app
DATABASE=myapp
SERVER_USER=postgres
REPLICA_DEADLINE=15
LINK=$ROOT/cluster

usage() {
    sed -n '2,/^set -/s/^# \{0,1\}//p' "$ROOT/scripts/quickstart.sh"
}

# The servers run as postgres when we are root, and postgres must be able to enter every directory
# on the way to its data and to the program.
postgres_can_enter() {
    setpriv --reuid="$SERVER_USER" --regid="$SERVER_USER" --init-groups test -x "$ROOT"
}

# A name of its own for each clone.
clone_name() {
    printf '%s-%s' "$(basename "$ROOT" | tr -c 'A-Za-z0-9._\n-' _)" \
        "$(printf '%s' "$ROOT" | sha256sum | cut -c1-8)"
}

install_program() {
    if ! cmp -s "$ROOT/build/$1" "$2/$1"; then
        install -m 755 "$ROOT/build/$1" "$2/$1.new"
        mv "$2/$1.new" "$2/$1"
    fi
}

# Sets PGDUET and CLUSTER.
choose_place() {
    local lib state

    PGDUET=$ROOT/build/pgduet
    CLUSTER=$LINK
    if [ "$(id -u)" != 0 ] || postgres_can_enter; then
        return
    fi
    lib=/usr/local/lib/pgduet/$(clone_name)
    state=/var/lib/pgduet/$(clone_name)
    mkdir -p "$lib" /var/lib/pgduet
    install_program pgduet "$lib"
    install_program pgduet-guard "$lib"
    PGDUET=$lib/pgduet
    CLUSTER=$state
    if [ ! -e "$LINK" ] && [ ! -L "$LINK" ]; then
        ln -s "$state" "$LINK"
    elif [ "$(readlink "$LINK")" != "$state" ]; then
        die "$LINK exists and is not the link to $state; move it away"
    fi
    say "the user $SERVER_USER cannot enter $ROOT: programs are in $lib, data in $state"
}

# How to call it, for people.
shown() {
    printf '%q -C %q %s' "$PGDUET" "$LINK" "$*"
}

pgduet() {
    "$PGDUET" -C "$CLUSTER" "$@"
}

make_cluster() {
    local options=(--port "$PORT")

    if [ -e "$CLUSTER/pgduet.conf" ]; then
        say "$LINK exists"
        return
    fi
    if [ -n "${MEMORY:-}" ]; then
        options+=(--memory "$MEMORY")
    fi
    "$PGDUET" init "$CLUSTER" "${options[@]}" >&2 ||
        die "the cluster could not be made"
    MADE=yes
}

# When a port is taken, what was made a moment ago would keep it: without data it may go again.
start_cluster() {
    if pgduet up >&2; then
        return
    fi
    if [ -z "$MADE" ] || compgen -G "$CLUSTER/data/*/PG_VERSION" >/dev/null; then
        die "the cluster did not start; hint: $(shown status)"
    fi
    pgduet down >/dev/null 2>&1 || true
    rm -rf "${CLUSTER:?}"
    die "the cluster did not start, and was removed again; hint: if a port is taken, choose" \
        "others: PORT=15432 scripts/quickstart.sh"
}

# json_field NAME: of the flat JSON on standard input.
json_field() {
    sed -nE 's/^ *"'"$1"'": ?"([^"]*)",?$/\1/p'
}

# Sets PASSWORD, WRITE_URL and READ_URL. Only a new user's password is known.
make_user() {
    local answer

    PASSWORD=
    answer=$(pgduet user list --json) || die "cannot list the users"
    if [[ $answer == *"\"$USER_NAME\""* ]]; then
        WRITE_URL=$(pgduet url --user "$USER_NAME" --for write 2>/dev/null)
        READ_URL=$(pgduet url --user "$USER_NAME" --for read 2>/dev/null)
        return
    fi
    answer=$(pgduet user create "$USER_NAME" --schema "$SCHEMA" --json) ||
        die "cannot create the user $USER_NAME"
    PASSWORD=$(json_field password <<<"$answer")
    WRITE_URL=$(json_field write <<<"$answer")
    READ_URL=$(json_field read <<<"$answer")
}

# sql write|read STATEMENT: as the new user with its password, as the administrator when we do not
# know it (any more).
sql() {
    local port=$PORT
    local options=(-X -q -A -t -v ON_ERROR_STOP=1)
    local read=()

    if [ "$1" = read ]; then
        port=$((PORT + 1))
        read=(--read)
    fi
    if [ -n "$PASSWORD" ]; then
        PGPASSWORD=$PASSWORD PGCONNECT_TIMEOUT=5 "$PSQL" -h 127.0.0.1 -p "$port" -U "$USER_NAME" \
            -d "$DATABASE" "${options[@]}" -c "$2"
    else
        pgduet psql "${read[@]}" -- "${options[@]}" -c "SET ROLE $USER_NAME" -c "$2"
    fi
}

round_trip() {
    local note seen deadline

    note=$(date -u +%Y-%m-%dT%H:%M:%S.%NZ)
    sql write "CREATE TABLE IF NOT EXISTS $SCHEMA.quickstart (note text, at timestamptz DEFAULT now())" \
        2> >(grep -v 'already exists' >&2) || die "cannot create a table on port $PORT"
    sql write "INSERT INTO $SCHEMA.quickstart (note) VALUES ('$note')" ||
        die "cannot write on port $PORT"
    deadline=$((SECONDS + REPLICA_DEADLINE))
    while :; do
        # The very first reads may come before the table does.
        seen=$(sql read "SELECT note FROM $SCHEMA.quickstart WHERE note = '$note'" 2>/dev/null) || seen=
        if [ "$seen" = "$note" ]; then
            break
        fi
        if [ "$SECONDS" -ge "$deadline" ]; then
            die "a row written on port $PORT was not seen on port $((PORT + 1)) within" \
                "$REPLICA_DEADLINE s; hint: $(shown status)"
        fi
        sleep 0.1
    done
    say "a row written on port $PORT was read on port $((PORT + 1))"
}

show_urls() {
    echo
    echo "Write: $WRITE_URL"
    echo "Read:  $READ_URL"
    echo
    if [ -n "$PASSWORD" ]; then
        echo "The password in these URLs is shown only now and kept nowhere. To set a new one:"
    else
        echo "The password was shown when the user was made. To set a new one:"
    fi
    echo "  $(shown user password "$USER_NAME")"
}

# However the script ends, a password that was set is shown.
show_password() {
    if [ -n "${PASSWORD:-}" ]; then
        show_urls
    fi
}

next_steps() {
    echo
    echo "Next: $(shown help)"
    echo "Stop: $(shown down)"
}

configured_port() {
    pgduet status --json | sed -nE 's/.*"write": ?"[^"]*:([0-9]+)".*/\1/p' | head -n 1
}

main() {
    local port

    MADE=
    case ${1:-} in
    '') ;;
    -h | --help)
        usage
        return
        ;;
    *) die "unknown argument '$1'; usage: PORT=5432 MEMORY=auto scripts/quickstart.sh" ;;
    esac
    PORT=${PORT:-5432}
    if ! [[ $PORT =~ ^[1-9][0-9]{0,4}$ ]] || [ "$PORT" -gt 65534 ]; then
        die "PORT=$PORT is not a port number below 65535"
    fi
    # The servers' user may not be able to stand where we were called.
    cd /
    deps_build
    # An existing cluster has its version already.
    if [ ! -e "$LINK/pgduet.conf" ] || [ -z "$(pg_newest)" ]; then
        deps_postgres
    fi
    PSQL=$(pg_newest_bindir)/psql
    deps_compile "$ROOT/build"
    choose_place
    make_cluster
    start_cluster
    port=$(configured_port)
    PORT=${port:-$PORT}
    trap show_password EXIT
    make_user
    round_trip
    echo
    pgduet status
    show_urls
    PASSWORD=
    next_steps
}

main "$@"
