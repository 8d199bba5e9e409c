#!/bin/bash
# Read by the scripts beside it, which work through any node of the deployment that runs.

# Prints a service whose container runs and has pgduet in it; ends the script when nobody can be asked.
find_node() {
    local version node nodes

    if ! command -v docker >/dev/null; then
        die "there is no docker on this machine; hint: install Docker Engine with the Compose plugin"
    fi
    version=$(docker compose version --short 2>/dev/null || true)
    if [[ ! $version =~ ^v?([2-9]|[1-9][0-9])\. ]]; then
        die "'docker compose' is not Compose 2; hint: install the package docker-compose-plugin"
    fi
    if ! docker version >/dev/null 2>&1; then
        die "the Docker engine does not answer; hint: 'docker version' says why"
    fi
    nodes=$(docker compose ps --services --status running | sed '/^init$/d')
    for node in $nodes; do
        if docker compose exec -T "$node" pgduet version </dev/null >/dev/null 2>&1; then
            echo "$node"
            return
        fi
    done
    die "no node of this deployment runs; hint: docker compose up -d, docker compose logs"
}

die() {
    echo "${0##*/}: $1" >&2
    exit 3
}
