#!/bin/bash
# Nodes, replication slots and one verdict:  ./scripts/check-replication.sh [--max-lag SIZE]
#
# Exit code: 0 fine, 1 warning (a replica is missing or lags), 2 critical (nobody takes writes), 3 unknown.
set -euo pipefail

pgduet() {
    docker compose exec -T "$node" pgduet "$@" </dev/null
}

cd "$(dirname "$(readlink -f "$0")")/.."
# shellcheck source=scripts/node.sh
. scripts/node.sh
node=$(find_node)

# The last one is the verdict; the others only show.
pgduet status || exit 3
echo
pgduet psql -- -X -P footer=off -c "
    SELECT slot_name AS slot, active, wal_status,
           pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)) AS wal_kept,
           pg_size_pretty(pg_wal_lsn_diff(sent_lsn, replay_lsn)) AS lag
    FROM pg_replication_slots LEFT JOIN pg_stat_replication ON pid = active_pid
    ORDER BY slot_name" || true
pgduet check "$@"
