"""Waiting, processes, ports and the `Cluster` helper of the end-to-end tests.

Nothing here sleeps for a fixed time: every wait names what it waits for, has a deadline, and fails
with what it last saw.
"""

import contextlib
import ctypes
import glob
import json
import os
import pwd
import re
import select
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import psycopg2

from ports import NeighbouringPorts
from waiting import DEFAULT_DEADLINE, hold_true, wait_until  # noqa: F401 (for the tests)

BINARIES = ("pgduet", "pgduet-guard")
SUPERUSER = "postgres"
REPLICATOR = "pgduet_replicator"
DATABASE = "myapp"
IS_ROOT = os.geteuid() == 0
SERVER_USER = "postgres" if IS_ROOT else pwd.getpwuid(os.geteuid()).pw_name
COMMAND_TIMEOUT = 90.0


# -- processes ------------------------------------------------------------------------------------


def proc_stat(pid):
    """Fields of /proc/PID/stat from the state on, or None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text.rsplit(")", 1)[1].split()


def start_ticks(pid):
    stat = proc_stat(pid)
    return int(stat[19]) if stat else None


def is_alive(pid):
    stat = proc_stat(pid)
    return stat is not None and stat[0] not in "ZX"


def parent_of(pid):
    stat = proc_stat(pid)
    return int(stat[1]) if stat else None


def children_of(pid):
    return [p for p in all_pids() if parent_of(p) == pid]


def all_pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def cmdline(pid):
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        return words.replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def comm(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def open_files(pid):
    """What its descriptors point to, by number; nothing when the process has ended meanwhile."""
    found = {}
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            found[fd] = read_link(f"/proc/{pid}/fd/{fd}")
    except (FileNotFoundError, ProcessLookupError):
        pass
    return {fd: target for fd, target in found.items() if target}


def environment(pid):
    """As bytes; empty when the process has ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def owner_of(pid):
    """Its effective user, or None when the process has ended meanwhile."""
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except FileNotFoundError:
        return None


def read_link(path):
    try:
        return os.readlink(path)
    except (FileNotFoundError, ProcessLookupError):
        return ""


def wait_gone(pid, what=None, deadline=DEFAULT_DEADLINE):
    """Wait until the process has ended (a zombie has)."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ready, _, _ = select.select([fd], [], [], deadline)
    finally:
        os.close(fd)
    assert ready, f"{what or 'process'} {pid} is still alive after {deadline:g} s: {cmdline(pid)}"


def kill(pid, sig=signal.SIGKILL):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, sig)


@contextlib.contextmanager
def frozen(*pids):
    """The processes are stopped (SIGSTOP) inside the block and go on after it."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            kill(pid, signal.SIGCONT)


def run_as(user):
    """Arguments for subprocess that make the child another user; nothing when not root."""
    if not IS_ROOT or user is None:
        return {}
    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": [entry.pw_gid]}


_libc = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


def die_with_parent():
    """In a child: end when the test process ends."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Sampler:
    """Looks at every process's command line, all the time, for words that must not be there."""

    def __init__(self, *secrets):
        self.secrets = [s for s in secrets if s]
        self.hits = []
        self.looks = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        own = os.getpid()
        while not self._stop.is_set():
            for pid in all_pids():
                text = cmdline(pid) if pid != own else ""
                for secret in self.secrets:
                    if secret in text:
                        self.hits.append(text.replace(secret, "<secret>"))
            self.looks += 1

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


# -- ports ----------------------------------------------------------------------------------------

PORTS_PER_BLOCK = 10


class PortBlock(NeighbouringPorts):
    """Ten of 20000 to 30000; each worker begins at another place."""

    def __init__(self):
        worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
        begin = int(re.sub(r"\D", "", worker) or 0) % 20 * 500
        super().__init__("e2e", [20000 + (begin + i * PORTS_PER_BLOCK) % 10000 for i in range(1000)], PORTS_PER_BLOCK)


# -- a cluster ------------------------------------------------------------------------------------


class Result:
    """What a command did, with assertions that print all of it when they fail."""

    def __init__(self, args, code, out, err, seconds):
        self.args, self.code, self.out, self.err, self.seconds = args, code, out, err, seconds

    def __str__(self):
        command = " ".join(str(a) for a in self.args)
        return (f"$ {command}\n[exit {self.code}, {self.seconds:.2f} s]\n"
                f"-- stdout\n{self.out}\n-- stderr\n{self.err}")

    def ok(self):
        assert self.code == 0, f"must succeed:\n{self}"
        return self

    def fails(self, code=1, match=None):
        """Exit code, one `pgduet: …` line on stderr that matches all of `match`, no crash."""
        codes = code if isinstance(code, tuple) else (code,)
        assert self.code in codes, f"must exit {codes}:\n{self}"
        assert "pgduet: " in self.err, f"no error line:\n{self}"
        for pattern in [match] if isinstance(match, str) else match or []:
            assert re.search(pattern, self.err, re.I | re.S), f"stderr lacks {pattern!r}:\n{self}"
        return self

    @property
    def json(self):
        try:
            return json.loads(self.out)
        except ValueError as e:
            raise AssertionError(f"not JSON ({e}):\n{self}") from e


class Running:
    """A command in the background, its output in files so that no pipe can block it."""

    def __init__(self, args, base, **options):
        self.args = args
        self._out = open(base / f"out.{id(self)}", "w+b")
        self._err = open(base / f"err.{id(self)}", "w+b")
        self.began = time.monotonic()
        self.process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=self._out,
                                        stderr=self._err, preexec_fn=die_with_parent, **options)
        self.pid = self.process.pid

    def _read(self, f):
        return Path(f.name).read_text(errors="replace")

    @property
    def out(self):
        return self._read(self._out)

    @property
    def err(self):
        return self._read(self._err)

    def signal(self, sig):
        self.process.send_signal(sig)

    def wait(self, deadline=COMMAND_TIMEOUT):
        """The Result; fails when the command does not end in time."""
        try:
            code = self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            seconds = time.monotonic() - self.began
            raise AssertionError(
                f"did not end within {deadline:g} s:\n"
                f"{Result(self.args, None, self.out, self.err, seconds)}") from None
        return Result(self.args, code, self.out, self.err, time.monotonic() - self.began)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._out.close()
        self._err.close()


class Cluster:
    """One deployment directory with everything a test does to it."""

    def __init__(self, base, pgduet, nodes=2, memory="256MB", ports=None):
        self.base = Path(base)  # private to the test, may be entered by everybody
        self.dir = self.base / "cluster"
        self.pgduet = Path(pgduet)
        self.block = ports or PortBlock()
        self.first_port = self.block.first
        self.names = [f"pg{i + 1}" for i in range(nodes)]
        self.memory = memory
        self.background = []
        self.connections = []
        self.writers = []
        self.mounts = []

    # commands

    def argv(self, *args):
        return [str(self.pgduet), "-C", str(self.dir), *map(str, args)]

    def run(self, *args, timeout=COMMAND_TIMEOUT, input=None, user=None, cwd=None, env=None,
            argv=None):
        command = argv or self.argv(*args)
        began = time.monotonic()
        try:
            done = subprocess.run(command, input=input, text=True, capture_output=True,
                                  timeout=timeout, cwd=cwd or self.base,
                                  env={**clean_environment(), **(env or {})},
                                  errors="replace", **run_as(user))
        except subprocess.TimeoutExpired as e:
            raise AssertionError(f"did not end within {timeout:g} s: {command}\n"
                                 f"{e.stdout!r}\n{e.stderr!r}\n{self.report()}") from None
        return Result(command, done.returncode, done.stdout, done.stderr,
                      time.monotonic() - began)

    def start(self, *args, user=None, cwd=None, env=None, argv=None):
        running = Running(argv or self.argv(*args), self.base, cwd=cwd or self.base,
                          env={**clean_environment(), **(env or {})}, **run_as(user))
        self.background.append(running)
        return running

    def init(self, *args):
        argv = [str(self.pgduet), "init", str(self.dir), "--nodes", str(len(self.names)),
                "--port", str(self.first_port), "--memory", self.memory, *map(str, args)]
        return self.run(argv=argv).ok()

    def up(self, *args, **options):
        return self.run("up", *args, **options).ok()

    def down(self, *args, **options):
        return self.run("down", *args, **options).ok()

    # files

    def path(self, *parts):
        return self.dir.joinpath(*parts)

    def data(self, node):
        return self.path("data", node)

    @property
    def conf(self):
        return self.path("pgduet.conf")

    def write(self, relative, text):
        """Replace a file of the directory, keeping owner and mode as an editor does."""
        path = self.path(relative)
        new = not path.exists()
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        if new:
            self.give_to_server_user(path)
        return path

    def edit(self, relative, change):
        return self.write(relative, change(self.path(relative).read_text()))

    def give_to_server_user(self, *paths):
        if IS_ROOT:
            for path in paths:
                shutil.chown(path, SERVER_USER, pwd.getpwnam(SERVER_USER).pw_gid)

    def secrets(self):
        pairs = re.findall(r"^(?:export )?(\w+)=(.*)$", self.path(".env").read_text(), re.M)
        return {name: value.strip().strip("'\"") for name, value in pairs}

    @property
    def admin_password(self):
        return self.secrets()["POSTGRES_ADMIN_PASSWORD"]

    def node_log(self, node):
        return read_if_there(self.path("logs", node, "pgduet.log"))

    def server_log(self, node):
        files = sorted(glob.glob(str(self.path("logs", node, "postgresql-*.log"))))
        return "".join(read_if_there(f) for f in files)

    # the store

    def record(self, key):
        """Newest revision of a key of the store, {} when it has none."""
        files = sorted(p for p in self.path("store", key).glob("*") if p.name.isdigit())
        return json.loads(files[-1].read_text()) if files else {}

    def leader(self):
        return self.record("leader")

    def history(self):
        files = sorted(p for p in self.path("store", "history").glob("*") if p.name.isdigit())
        return [json.loads(p.read_text()) for p in files]

    def beacon(self, node):
        try:
            return json.loads(self.path("store", "beacons", node).read_text())
        except (OSError, ValueError):
            return {}

    # processes

    def guard_pid(self, node):
        """The living guard's pid or None."""
        words = read_if_there(self.path("run", node, "guard.pid")).split()
        if not words or not is_alive(int(words[0])) or comm(int(words[0])) != "pgduet-guard":
            return None
        return int(words[0])

    def agent_pid(self, node):
        """The guard's living agent or None."""
        guard = self.guard_pid(node)
        for pid in children_of(guard) if guard else []:
            if "agent" in cmdline(pid).split() and is_alive(pid):
                return pid
        return None

    def postmaster_pid(self, node):
        """The living postmaster by postmaster.pid, checked by its working directory, or None."""
        words = read_if_there(self.data(node) / "postmaster.pid").split()
        if not words or not words[0].isdigit():
            return None
        pid = int(words[0])
        try:
            at_home = os.path.samefile(f"/proc/{pid}/cwd", self.data(node))
        except OSError:
            return None
        return pid if at_home and is_alive(pid) else None

    def pids(self, node):
        return [p for p in (self.guard_pid(node), self.agent_pid(node), self.postmaster_pid(node))
                if p]

    def processes(self):
        """Every process that works in this directory or names it."""
        found = []
        here = str(self.dir)
        started = {running.pid for running in self.background}
        for pid in all_pids():
            if pid == os.getpid() or pid in started or not is_alive(pid):
                continue
            try:
                cwd = os.readlink(f"/proc/{pid}/cwd")
            except OSError:
                cwd = ""
            if (cwd + "/").startswith(here + "/") or here in cmdline(pid):
                found.append(pid)
        return found

    def assert_nothing_runs(self, deadline=5.0):
        wait_until(lambda: not self.processes(), "no process of the cluster left: " +
                   "; ".join(f"{p} {cmdline(p)}" for p in self.processes()), deadline)

    def kill_all(self, sig=signal.SIGKILL):
        """Like pulling the plug: every process of every node at once, guards first."""
        guards = [p for p in map(self.guard_pid, self.names) if p]
        rest = [p for p in self.processes() if p not in guards]
        for pid in guards + rest:
            kill(pid, sig)
        wait_until(lambda: not self.end_leftovers(), "everything of the cluster to be killed", 15)

    def end_leftovers(self):
        left = self.processes()
        for pid in left:
            kill(pid)
        return left

    # SQL

    def port(self, node):
        return self.first_port + self.names.index(node)

    def connect(self, node=None, user=SUPERUSER, password=None, dbname=DATABASE, **options):
        """An autocommit connection by TCP, closed at the end of the test."""
        if user == SUPERUSER and password is None:
            password = self.admin_password
        conn = psycopg2.connect(host="127.0.0.1", port=self.port(node or self.names[0]), user=user,
                                password=password, dbname=dbname,
                                **{"connect_timeout": 5, **options})
        if not conn.async_:
            conn.autocommit = True
        self.connections.append(conn)
        return conn

    def sql(self, query, node=None, params=None, **options):
        """One statement on a connection of its own; rows, or None."""
        conn = self.connect(node, **options)
        try:
            with conn.cursor() as cursor:
                cursor.execute(query, params)
                return cursor.fetchall() if cursor.description else None
        finally:
            conn.close()
            self.connections.remove(conn)

    def value(self, query, node=None, **options):
        return self.sql(query, node, **options)[0][0]

    def show(self, setting, node=None):
        return self.value(f"SHOW {setting}", node)

    def answers(self, node):
        try:
            return self.value("SELECT 1", node) == 1
        except psycopg2.Error:
            return False

    # state

    def status(self):
        return self.run("status", "--json").ok().json

    def node(self, name):
        return next(n for n in self.status()["nodes"] if n["name"] == name)

    def streams(self, node):
        return self.value("SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'",
                          node) == 1

    def wait_streaming(self, *nodes, deadline=DEFAULT_DEADLINE):
        for node in nodes or self.names[1:]:
            wait_until(lambda: self.streams(node), f"{node} to stream", deadline)

    def wait_same(self, query, deadline=DEFAULT_DEADLINE):
        """Every node answers the query as the primary does; that answer."""
        want = self.sql(query)
        for node in self.names[1:]:
            wait_until(lambda: self.sql(query, node) == want, f"{query} on {node} = {want}",
                       deadline)
        return want

    def assert_healthy(self):
        """One primary that takes writes, every replica streams and has them."""
        wait_until(lambda: self.answers(self.names[0]), "the primary to answer")
        self.wait_streaming()
        status = self.status()
        assert status["primary"] == self.names[0], status
        assert {n["name"]: n["state"] for n in status["nodes"]} == dict.fromkeys(
            self.names, "running"), status
        self.sql("CREATE TABLE IF NOT EXISTS probe (at timestamptz DEFAULT clock_timestamp())")
        self.sql("INSERT INTO probe DEFAULT VALUES")
        self.wait_same("SELECT count(*), max(at) FROM probe")

    def report(self, lines=40):
        """What somebody who reads a failure wants to see."""
        parts = []
        for node in self.names:
            beacon = read_if_there(self.path("store", "beacons", node)).strip()
            parts.append(f"-- {node}: guard {self.guard_pid(node)}, agent {self.agent_pid(node)}, "
                         f"postmaster {self.postmaster_pid(node)}; beacon {beacon}")
            parts.append(f"-- {node}/pgduet.log\n{tail(self.node_log(node), lines)}")
            parts.append(f"-- {node}/postgresql.log\n{tail(self.server_log(node), lines)}")
        with contextlib.suppress(OSError, ValueError):
            parts.append(f"-- leader {self.leader()}")
        parts += [f"-- process {p}: {cmdline(p)}" for p in self.processes()]
        return "\n".join(parts)

    # the end

    def destroy(self):
        for writer in self.writers:
            writer.give_up()
        for conn in self.connections:
            conn.close()
        for running in self.background:
            running.end()
        for pid in self.processes():
            kill(pid, signal.SIGCONT)
        if self.conf.exists() and self.processes():
            with contextlib.suppress(AssertionError):
                self.run("down", "--timeout", "20", timeout=30)
        self.kill_all()
        for mount in self.mounts:
            subprocess.run(["umount", "--lazy", str(mount)], check=False)
        self.block.release()
        shutil.rmtree(self.base, ignore_errors=True)


def stop_node(cluster, node):
    """One node of a running cluster, as `systemctl stop` would."""
    guard = cluster.guard_pid(node)
    kill(guard, signal.SIGTERM)
    wait_gone(guard, f"the guard of {node}")


class Writer(threading.Thread):
    """Commits one row after the other and remembers which of them the server acknowledged.

    Reconnects for as long as it takes; a row whose commit failed is in doubt and is not counted.
    """

    def __init__(self, cluster, table="written", node=None):
        super().__init__(daemon=True)
        self.cluster, self.table, self.node = cluster, table, node
        self.acknowledged = []
        self._stop_event = threading.Event()
        self._next = 0
        cluster.writers.append(self)
        cluster.sql(f"CREATE TABLE IF NOT EXISTS {table} (id bigint PRIMARY KEY)")

    def run(self):
        while not self._stop_event.is_set():
            try:
                conn = self.cluster.connect(self.node)
                with conn.cursor() as cursor:
                    while not self._stop_event.is_set():
                        self._next += 1
                        cursor.execute(f"INSERT INTO {self.table} VALUES (%s)", (self._next,))
                        self.acknowledged.append(self._next)
                conn.close()
            except psycopg2.Error:
                self._stop_event.wait(0.02)

    def wait_for(self, n=1, deadline=DEFAULT_DEADLINE):
        """n more acknowledged rows from now."""
        goal = len(self.acknowledged) + n
        wait_until(lambda: len(self.acknowledged) >= goal, f"{goal} acknowledged rows", deadline)

    def give_up(self):
        self._stop_event.set()

    def stop(self):
        self.give_up()
        self.join(DEFAULT_DEADLINE)
        assert not self.is_alive(), "the writer hangs in a statement"

    def assert_nothing_lost(self, node=None):
        present = {row[0] for row in self.cluster.sql(f"SELECT id FROM {self.table}", node)}
        lost = [i for i in self.acknowledged if i not in present]
        assert self.acknowledged, "no row was ever acknowledged: the test proves nothing"
        total = len(self.acknowledged)
        assert not lost, f"{len(lost)} of {total} acknowledged rows lost: {lost[:5]}"


# -- small things ---------------------------------------------------------------------------------


def clean_environment():
    """The caller's environment without what would point libpq or pgduet elsewhere."""
    return {k: v for k, v in os.environ.items()
            if not k.startswith(("PG", "POSTGRES")) and k != "PYTEST_CURRENT_TEST"}


def read_if_there(path):
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def tail(text, lines):
    return "\n".join(text.splitlines()[-lines:])


def snapshot(directory):
    """Names, sizes, modes and contents below a directory: to prove that nothing was touched."""
    found = {}
    for root, dirs, files in os.walk(directory):
        for name in dirs + files:
            path = os.path.join(root, name)
            info = os.lstat(path)
            content = Path(path).read_bytes() if os.path.isfile(path) else None
            found[os.path.relpath(path, directory)] = (info.st_mode, info.st_size, content)
    return found


def mode(path):
    return os.stat(path).st_mode & 0o777


def bindir(cluster):
    """PostgreSQL's programs as pgduet finds them."""
    out = cluster.run("version").ok().out
    match = re.search(r"(/\S+)", out)
    assert match, f"`version` names no directory of PostgreSQL's programs: {out}"
    return Path(match.group(1).rstrip(")],;."))


def server_tool(cluster, *args, **options):
    """Run one of PostgreSQL's programs as the servers' user."""
    program, *rest = args
    return subprocess.run([str(bindir(cluster) / program), *map(str, rest)], capture_output=True,
                          text=True, timeout=COMMAND_TIMEOUT, cwd="/", env=clean_environment(),
                          **run_as(SERVER_USER), **options)
