#!/bin/bash
# Delete a user. What it owns goes to the superuser, or with --drop-schema its schemas are dropped with
# everything in them:  ./scripts/delete-user.sh USER [--drop-schema]
set -euo pipefail

cd "$(dirname "$(readlink -f "$0")")/.."
# shellcheck source=scripts/node.sh
. scripts/node.sh
node=$(find_node)
docker compose exec -T "$node" pgduet user delete "$@" </dev/null
