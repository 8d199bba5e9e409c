#!/bin/bash
# Create a user, with a schema of its own if you name one:
#
#   ./scripts/create-user.sh USER PASSWORD [SCHEMA] [--createdb]
#
# PASSWORD may be "-": it is then read from standard input, and no other program sees it. When the user
# exists, its password stays, and a new schema is added.
set -euo pipefail

usage() {
    echo "usage: ${0##*/} USER PASSWORD [SCHEMA] [--createdb]; PASSWORD -: from standard input" >&2
    exit 2
}

options=(--password-stdin --if-not-exists)
words=()
for word in "$@"; do
    case $word in
    --createdb) options+=(--createdb) ;;
    --*) usage ;;
    *) words+=("$word") ;;
    esac
done
if [ ${#words[@]} -lt 2 ] || [ ${#words[@]} -gt 3 ]; then
    usage
fi
if [ ${#words[@]} = 3 ]; then
    options+=(--schema "${words[2]}")
fi

cd "$(dirname "$(readlink -f "$0")")/.."
# shellcheck source=scripts/node.sh
. scripts/node.sh
node=$(find_node)

create=(docker compose exec -T "$node" pgduet user create "${words[0]}" "${options[@]}")
if [ "${words[1]}" = - ]; then
    "${create[@]}"
else
    "${create[@]}" <<<"${words[1]}"
fi
