#!/bin/bash
# Users, their schemas, rights and connections:  ./scripts/list-users.sh [--json]
set -euo pipefail

cd "$(dirname "$(readlink -f "$0")")/.."
# shellcheck source=scripts/node.sh
. scripts/node.sh
node=$(find_node)
docker compose exec -T "$node" pgduet user list "$@" </dev/null
