#!/usr/bin/python3
"""The Compose deployment beside the native one: how long until a primary and a replica are up.

  compose.py [-n ROUNDS] [-o RESULT.json] [--build DIR] [--image NAME]

One round is the native pair, as bench.py measures it, and `docker compose up -d` in a new folder, from nothing to both
containers healthy and a row of the primary read on the replica. What the engine itself needs is shown by containers
that do nothing. Needs python3-psycopg2, Docker with Compose 2, the image, and a release build; removes what it makes.
"""
import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from bench import ROOT, Duet, connect, row_travels, until

PORT = 27400
LIMIT = 6.0
TAG = f"pgduet-bench-{os.getpid()}"
NODES = ("postgres-master", "postgres-replica")


def out_of(*argv, **options):
    return subprocess.run(argv, check=True, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, **options).stdout.strip()


class Compose:
    """The folder that `pgduet init --docker` writes, with names of its own."""

    def __init__(self, work, program, image):
        self.dir = tempfile.mkdtemp(prefix="compose-", dir=work) + "/folder"
        subprocess.run([program, "init", "--docker", self.dir, "--port", str(PORT)], check=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        path = f"{self.dir}/docker-compose.yml"
        text = re.sub(r"(container_name: |name: (?=postgres-backend))", rf"\1{TAG}-", open(path).read())
        open(path, "w").write(text)
        env = dict(x.split("=", 1) for x in open(f"{self.dir}/.env").read().split("\n") if re.match(r"\w+=", x))
        self.password = env["POSTGRES_ADMIN_PASSWORD"]
        self.env = {**os.environ, "COMPOSE_PROJECT_NAME": TAG, "PGDUET_IMAGE": image, "POSTGRES_CPUS": "0"}

    def compose(self, *argv):
        out_of("docker", "compose", *argv, cwd=self.dir, env=self.env)

    def healthy(self):
        names = [f"{TAG}-{node}" for node in NODES]
        states = out_of("docker", "inspect", "--format", "{{.State.Health.Status}}", *names).split()
        return states == ["healthy"] * len(NODES)

    def up(self):
        """Seconds until the command is through, a row is on the replica, both are healthy."""
        t = time.monotonic()
        self.compose("up", "-d")
        through = time.monotonic() - t
        until(lambda: connect(PORT, self.password))
        row_travels(PORT, PORT + 1, self.password)
        row = time.monotonic() - t
        until(self.healthy, every=0.02)
        return through, row, time.monotonic() - t

    def down(self):
        self.compose("down", "--volumes", "--timeout", "10")
        # logs/ belongs to the containers' user, and so they clear it
        out_of("docker", "run", "--rm", "--user", "0:0", "--network", "none", "-v", f"{self.dir}/logs:/logs",
               "--entrypoint", "find", self.env["PGDUET_IMAGE"], "/logs", "-mindepth", "1", "-delete")


def empty_containers(image):
    """As many as the deployment has, one after the other: init, and two at once."""
    t = time.monotonic()
    argv = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "true", image]
    out_of(*argv)
    for child in [subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) for _ in NODES]:
        child.wait()
    return time.monotonic() - t


def show(title, values, note=""):
    print(f"{title:46} {statistics.median(values):6.2f} s  ({min(values):.2f}-{max(values):.2f}){note}", flush=True)
    return values


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("-n", type=int, default=5)
    ap.add_argument("-o")
    ap.add_argument("--build", default=f"{ROOT}/build")
    ap.add_argument("--image", default="pgduet:17")
    a = ap.parse_args()
    work = tempfile.mkdtemp(prefix="pgduet-bench-")
    os.chmod(work, 0o755)
    native, empty, compose = [], [], []
    try:
        for _ in range(a.n):
            duet = Duet(work, a.build)
            try:
                native.append(duet.up())
            finally:
                duet.down()
            empty.append(empty_containers(a.image))
            deployment = Compose(work, duet.program, a.image)
            try:
                compose.append(deployment.up())
            finally:
                deployment.down()
        through, row, healthy = zip(*compose)
        show("native: pair until a row is on the replica", native)
        show("three containers that do nothing", empty)
        show("docker compose up -d: command", through)
        show("docker compose up -d: row on the replica", row)
        show("docker compose up -d: and both healthy", healthy, f"  (limit {LIMIT:g} s)")
    finally:
        if a.o:
            json.dump(dict(native=native, empty=empty, compose=compose), open(a.o, "w"), indent=1)
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
