#!/usr/bin/python3
"""pgduet beside the floor: what bare PostgreSQL costs on the same machine, in the same run.

  bench.py [-n ROUNDS] [-o RESULT.json] [--only up,up4,crash,status,idle] [--build DIR] [--idle SECONDS]

The floor is a script without a tool and without pauses: initdb, start, pg_basebackup -c fast,
start. Directories are removed at the very end: ext4 is slow to create files for a minute after
many were deleted. Rounds alternate, so that a machine that slows down slows both. Medians and ratios count, not
single figures. Needs python3-psycopg2, a release build, and a user other than root or the right
to become `postgres`.
"""
import argparse
import glob
import json
import os
import pwd
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import psycopg2

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PORT = 27300
QUIET = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def newest_bindir():
    dirs = glob.glob("/usr/lib/postgresql/*/bin") + glob.glob("/usr/pgsql-*/bin")
    dirs = [d for d in dirs if os.access(f"{d}/initdb", os.X_OK)]
    return max(dirs, key=lambda d: int(re.search(r"(\d+)", d.replace("/usr/", "")).group(1)))


BIN = newest_bindir()


def as_user():
    """Servers do not run as root."""
    if os.geteuid() != 0:
        return {}
    p = pwd.getpwnam("postgres")
    return dict(user=p.pw_uid, group=p.pw_gid, extra_groups=[])


def run(*argv):
    subprocess.run(argv, check=True, cwd="/", **QUIET, **as_user())


def spawn(datadir):
    with open(f"{datadir}.log", "ab") as log:
        return subprocess.Popen([f"{BIN}/postgres", "-D", datadir], stdin=subprocess.DEVNULL,
                                stdout=log, stderr=log, cwd="/", start_new_session=True, **as_user())


def connect(port, password=None):
    c = psycopg2.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres",
                         password=password, sslmode="disable", gssencmode="disable",
                         connect_timeout=2)
    c.autocommit = True
    return c


def until(f, limit=60.0, every=0.001):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        try:
            r = f()
            if r:
                return r
        except psycopg2.Error:
            pass
        time.sleep(every)
    raise RuntimeError("time is up")


def row_travels(primary, replica, password=None):
    c = connect(primary, password)
    c.cursor().execute("CREATE TABLE IF NOT EXISTS bench (x int); INSERT INTO bench VALUES (1)")

    def seen():
        d = connect(replica, password)
        d.cursor().execute("SELECT x FROM bench")
        return True
    until(seen)


class Bare:
    """The floor."""
    name = "floor"

    def __init__(self, work):
        self.work = tempfile.mkdtemp(prefix="bare-", dir=work) + "/n"
        os.chmod(os.path.dirname(self.work), 0o755)
        self.servers = []

    def conf(self, d, port):
        with open(f"{d}/postgresql.auto.conf", "a") as f:
            f.write(f"listen_addresses='127.0.0.1'\nport={port}\nunix_socket_directories='{self.work}'\n")

    def up(self, nodes=2):
        os.makedirs(self.work)
        if os.geteuid() == 0:
            os.chown(self.work, as_user()["user"], as_user()["group"])
        t = time.monotonic()
        a = f"{self.work}/n0"
        run(f"{BIN}/initdb", "-D", a, "-A", "trust", "-U", "postgres", "-k")
        self.conf(a, PORT + 100)
        self.servers.append(spawn(a))
        until(lambda: connect(PORT + 100))
        for i in range(1, nodes):
            b = f"{self.work}/n{i}"
            run(f"{BIN}/pg_basebackup", "-D", b, "-h", "127.0.0.1", "-p", str(PORT + 100), "-U",
                "postgres", "-c", "fast", "-R")
            self.conf(b, PORT + 100 + i)
            self.servers.append(spawn(b))
        for i in range(1, nodes):
            row_travels(PORT + 100, PORT + 100 + i)
        return time.monotonic() - t

    def crash(self):
        """Outage of a writer when the postmaster is killed and started again at once."""
        def restart(old):
            until(lambda: old.poll() is not None)
            while True:
                p = spawn(f"{self.work}/n0")
                try:
                    p.wait(0.02)        # refused while a process of the old server is still there
                except subprocess.TimeoutExpired:
                    self.servers[0] = p
                    return
        return outage(PORT + 100, None, lambda: kill_and(self.servers[0], restart))

    def down(self):
        for p in self.servers:
            if p.poll() is None:
                p.send_signal(signal.SIGQUIT)
                p.wait(30)


def kill_and(proc, then):
    proc.kill()
    then(proc)


class Duet:
    name = "pgduet"

    def __init__(self, work, build):
        self.dir = tempfile.mkdtemp(prefix="duet-", dir=work) + "/cluster"
        os.chmod(os.path.dirname(self.dir), 0o755)
        self.program = f"{work}/bin/pgduet"
        self.password = None
        if not os.path.exists(self.program):
            os.makedirs(f"{work}/bin")
            for f in ("pgduet", "pgduet-guard"):
                shutil.copy2(f"{build}/{f}", f"{work}/bin/{f}")

    def call(self, *argv, check=True):
        return subprocess.run([self.program, "-C", self.dir, *argv], check=check, cwd="/",
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def up(self, nodes=2):
        t = time.monotonic()
        subprocess.run([self.program, "init", self.dir, "--nodes", str(nodes), "--port", str(PORT),
                        "--memory", "small"], check=True, cwd="/", **QUIET)
        self.call("up")
        env = dict(x.split("=", 1) for x in open(f"{self.dir}/.env").read().split("\n") if "=" in x)
        self.password = env["POSTGRES_ADMIN_PASSWORD"]
        for i in range(1, nodes):
            row_travels(PORT, PORT + i, self.password)
        return time.monotonic() - t

    def beacon(self, node):
        return json.load(open(f"{self.dir}/store/beacons/{node}"))

    def crash(self):
        pid = self.beacon("pg1")["postmaster_pid"]
        return outage(PORT, self.password, lambda: os.kill(pid, signal.SIGKILL))

    def status(self):
        before = os.times()
        t = time.monotonic()
        self.call("status", "--json")
        wall = time.monotonic() - t
        after = os.times()
        return wall, (after.children_user + after.children_system
                      - before.children_user - before.children_system)

    def down(self):
        self.call("down")


def outage(port, password, fault):
    """Longest gap between acknowledged inserts of one client around the fault, ms."""
    def writer():
        c = connect(port, password)
        return c.cursor()
    cur = until(writer)
    cur.execute("CREATE TABLE IF NOT EXISTS bench (x int)")
    cur.execute("CHECKPOINT")               # the same little recovery for both
    stop = time.monotonic() + 0.3
    last = time.monotonic()
    while time.monotonic() < stop:
        cur.execute("INSERT INTO bench VALUES (2)")
        last = time.monotonic()
    import threading
    t = threading.Thread(target=fault)
    t.start()
    gap = 0.0
    end = None
    while end is None or time.monotonic() < end:
        try:
            if cur is None:
                cur = writer()
            cur.execute("INSERT INTO bench VALUES (3)")
            now = time.monotonic()
            if now - last > gap:
                gap = now - last
                if gap > 0.05:
                    end = now + 0.3
            last = now
        except psycopg2.Error:
            cur = None
            time.sleep(0.002)
    t.join()
    return gap


def pss(pids):
    return sum(int(re.search(r"^Pss:\s+(\d+)", open(f"/proc/{p}/smaps_rollup").read(), re.M).group(1))
               for p in pids) / 1024


def precise_cpu(pids):
    """Seconds of CPU by the scheduler's own count (nanoseconds), where ticks are too coarse."""
    return sum(int(open(f"/proc/{p}/schedstat").read().split()[0]) for p in pids) / 1e9


def children(pid):
    out = []
    for p in open(f"/proc/{pid}/task/{pid}/children").read().split():
        out += [int(p)] + children(int(p))
    return out


def idle(bare, duet, seconds):
    """Both pairs at once, doing nothing. What PostgreSQL itself needs is the floor's figure."""
    time.sleep(8)
    groups = {}
    for i, node in enumerate(("pg1", "pg2")):
        b = duet.beacon(node)
        groups[node] = ([b["guard_pid"], b["agent_pid"]],
                        [b["postmaster_pid"]] + children(b["postmaster_pid"]),
                        [bare.servers[i].pid] + children(bare.servers[i].pid))
    before = {n: [precise_cpu(pids) for pids in g] for n, g in groups.items()}
    time.sleep(seconds)
    rows = {}
    for node, group in groups.items():
        used = [(precise_cpu([p for p in pids if os.path.exists(f"/proc/{p}")]) - b) * 60 / seconds
                for pids, b in zip(group, before[node])]
        rows[node] = dict(pss_mb=round(pss(group[0]), 2), cpu_s_per_60s=round(used[0], 4),
                          postgres_cpu_s_per_60s=round(used[1], 4),
                          floor_postgres_cpu_s_per_60s=round(used[2], 4))
    return rows


def show(title, floor, ours, limit):
    f, o = statistics.median(floor), statistics.median(ours)
    print(f"{title:34} floor {f:8.1f}  ({min(floor):.0f}-{max(floor):.0f})   "
          f"pgduet {o:8.1f}  ({min(ours):.0f}-{max(ours):.0f})   ratio {o / f:5.2f}  (limit {limit})", flush=True)
    return dict(floor=floor, pgduet=ours, ratio=round(o / f, 3))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("-n", type=int, default=5)
    ap.add_argument("-o")
    ap.add_argument("--only", default="up,up4,crash,status,idle")
    ap.add_argument("--build", default=f"{ROOT}/build")
    ap.add_argument("--idle", type=int, default=60)
    a = ap.parse_args()
    only = a.only.split(",")
    work = tempfile.mkdtemp(prefix="pgduet-bench-")
    os.chmod(work, 0o755)
    out = {"postgres": subprocess.check_output([f"{BIN}/postgres", "--version"], text=True).strip()}
    print(out["postgres"], "- medians, milliseconds (min-max)", flush=True)
    series = {k: ([], []) for k in ("up", "up4", "crash")}
    status_wall, status_cpu = [], []
    try:
        for i in range(a.n):
            bare, duet = Bare(work), Duet(work, a.build)
            pair = [(bare, 0), (duet, 1)]
            for tool, k in pair if i % 2 == 0 else reversed(pair):
                try:
                    took = tool.up()
                    series["up"][k].append(took * 1000)
                    if "crash" in only:
                        series["crash"][k].append(tool.crash() * 1000)
                    if tool is duet and "status" in only:
                        for wall, cpu in (duet.status() for _ in range(5)):
                            status_wall.append(wall * 1000)
                            status_cpu.append(cpu * 1000)
                finally:
                    tool.down()
            if "up4" in only:
                duet4 = Duet(work, a.build)
                try:
                    series["up4"][1].append(duet4.up(4) * 1000)
                    series["up4"][0].append(series["up"][1][-1])
                finally:
                    duet4.down()
        if "idle" in only:
            bare, duet = Bare(work), Duet(work, a.build)
            try:
                bare.up()
                duet.up()
                out["idle"] = idle(bare, duet, a.idle)
            finally:
                bare.down()
                duet.down()
        out["up"] = show("up: pair until a row is on the replica", *series["up"], 1.0)
        if series["up4"][1]:
            out["up4"] = show("up --nodes 4, beside pgduet's pair", *series["up4"], 1.5)
        if series["crash"][1]:
            out["crash"] = show("postmaster killed: write outage", *series["crash"], 1.3)
        if status_cpu:
            out["status"] = dict(cpu_ms=status_cpu, wall_ms=status_wall)
            print(f"status: own CPU {statistics.median(status_cpu):.1f} ms, wall {statistics.median(status_wall):.1f} ms (limit 30 own)")
        for node, row in out.get("idle", {}).items():
            print(f"idle {node}: guard + agent {row['pss_mb']} MB proportional (limit 4), {row['cpu_s_per_60s']} s CPU "
                  f"per minute (limit 0.02), PostgreSQL {row['postgres_cpu_s_per_60s']} s (floor "
                  f"{row['floor_postgres_cpu_s_per_60s']}, limit 0.05 more)")
    finally:
        if a.o:
            json.dump(out, open(a.o, "w"), indent=1)
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
