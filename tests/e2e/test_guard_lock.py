"""Who holds which lock, what is inherited, and guards that a sibling has started."""

import fcntl
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from utils import (BINARIES, Running, clean_environment, hold_true, kill, open_files, parent_of,
                   start_ticks, wait_gone, wait_until)

LOCK_FD = 9

# Runs a program with one file open as each of the descriptors 3 to 9.
WITH_DESCRIPTORS = """
import os, sys
fd = int(sys.argv[1])
for n in range(3, 10):
    os.dup2(fd, n)
os.execv(sys.argv[2], sys.argv[2:])
"""


def lock_holders(path):
    """Processes that took a lock on the file, by /proc/locks."""
    inode = os.stat(path).st_ino
    fields = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return [int(f[4]) for f in fields
            if f[1:4] == ["FLOCK", "ADVISORY", "WRITE"] and int(f[5].rsplit(":", 1)[1]) == inode]


def assert_holds_its_lock(cluster, *nodes):
    for node in nodes or cluster.names:
        wait_until(lambda: cluster.answers(node), f"{node} to answer")
        pid = cluster.postmaster_pid(node)
        lock = cluster.path("store/locks", f"{node}.postgres")
        assert os.readlink(f"/proc/{pid}/fd/{LOCK_FD}") == os.path.realpath(lock)
        assert lock_holders(lock) == [pid]
        guard = cluster.path("store/locks", f"{node}.guard")
        assert lock_holders(guard) == [cluster.guard_pid(node)]


def revived(cluster, node, guard):
    """Kill the guard and wait until a sibling's agent has brought the node back; the new guard."""
    _, agent, postmaster = cluster.pids(node)
    kill(guard)
    wait_gone(agent, "the agent of the dead guard")
    wait_gone(postmaster, "the server of the dead guard")
    wait_until(lambda: cluster.guard_pid(node) not in (None, guard), f"a new guard of {node}")
    wait_until(lambda: cluster.answers(node), f"{node} to answer")
    return cluster.guard_pid(node)


# -- the postgres lock ----------------------------------------------------------------------------


def test_every_server_holds_its_lock(fresh_pair):
    assert_holds_its_lock(fresh_pair)
    old = fresh_pair.postmaster_pid("pg1")
    kill(old)
    wait_until(lambda: fresh_pair.postmaster_pid("pg1") not in (None, old), "a new server")
    assert_holds_its_lock(fresh_pair)
    fresh_pair.run("restart").ok()
    assert_holds_its_lock(fresh_pair)


@pytest.mark.parametrize("node", ["pg1", "pg2"])
def test_a_server_of_a_guard_that_a_sibling_started_holds_its_lock(fresh_pair, node):
    revived(fresh_pair, node, fresh_pair.guard_pid(node))
    assert_holds_its_lock(fresh_pair)
    sibling = "pg2" if node == "pg1" else "pg1"
    names = [os.path.realpath(fresh_pair.path("store/locks", f"{sibling}.{lock}"))
             for lock in ("guard", "postgres")]
    for pid in fresh_pair.pids(node):
        assert not set(names) & set(open_files(pid).values()), "a lock of the sibling was inherited"


def test_up_with_descriptors_open_and_a_lock_of_the_caller(cluster):
    """They are the caller's: the server's lock gets its descriptor, and nobody keeps theirs."""
    path = cluster.base / "caller.lock"
    with open(path, "w", encoding="ascii") as mine:
        fcntl.flock(mine, fcntl.LOCK_EX)
        up = Running([sys.executable, "-c", WITH_DESCRIPTORS, str(mine.fileno()),
                      *cluster.argv("up")], cluster.base, pass_fds=(mine.fileno(),),
                     cwd=cluster.base, env=clean_environment())
        cluster.background.append(up)
        up.wait().ok()
        assert_holds_its_lock(cluster)
    for pid in cluster.processes():
        assert str(path) not in open_files(pid).values(), "the caller's file is still open"
    with open(path, "w", encoding="ascii") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    revived(cluster, "pg1", cluster.guard_pid("pg1"))
    assert_holds_its_lock(cluster)
    cluster.assert_healthy()


def test_agent_in_the_foreground_with_descriptors_open(make_cluster):
    cluster = make_cluster(nodes=1)
    path = cluster.base / "caller.lock"
    with open(path, "w", encoding="ascii") as mine:
        fcntl.flock(mine, fcntl.LOCK_EX)
        agent = Running([sys.executable, "-c", WITH_DESCRIPTORS, str(mine.fileno()),
                         *cluster.argv("agent", "pg1")], cluster.base, pass_fds=(mine.fileno(),),
                        cwd=cluster.base, env=clean_environment())
        cluster.background.append(agent)
        assert_holds_its_lock(cluster)
    with open(path, "w", encoding="ascii") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    agent.process.terminate()
    agent.wait(20).ok()


# -- a sibling's guard of another build -----------------------------------------------------------


@pytest.fixture
def own_programs(pgduet):
    """A private copy of the programs, which the test may replace."""
    place = Path(tempfile.mkdtemp(prefix="pgduet-e2e-bin-", dir="/tmp"))  # shm may be noexec
    place.chmod(0o755)
    for name in BINARIES:
        shutil.copy(pgduet.with_name(name), place / name)
    yield place / "pgduet"
    shutil.rmtree(place, ignore_errors=True)


def install_new_version(program):
    """As a package manager does: a new file is renamed over the old one, which still runs."""
    for name in BINARIES:
        path = program.with_name(name)
        old = path.stat().st_ino
        shutil.copy(path, path.with_name("new"))
        os.rename(path.with_name("new"), path)
        assert path.stat().st_ino != old


@pytest.mark.parametrize("victim", ["postmaster", "agent"])
def test_a_siblings_guard_of_another_build_is_left_alone(own_programs, cluster, victim):
    """It is a child of the guard whose agent started it, and no orphan of that one's server."""
    cluster.pgduet = own_programs
    cluster.up()
    install_new_version(own_programs)
    guard = revived(cluster, "pg1", cluster.guard_pid("pg1"))
    assert parent_of(guard) == cluster.guard_pid("pg2"), "else this proves nothing"
    assert_holds_its_lock(cluster)
    wait_until(lambda: cluster.beacon("pg1").get("ready"), "pg1 to be ready")
    before = cluster.pids("pg1")
    ticks = [start_ticks(pid) for pid in before]
    find = cluster.postmaster_pid if victim == "postmaster" else cluster.agent_pid
    old = find("pg2")
    kill(old)
    wait_until(lambda: find("pg2") not in (None, old), f"a new {victim} of pg2")
    wait_until(lambda: cluster.answers("pg2"), "pg2 to answer")
    hold_true(lambda: cluster.pids("pg1") == before, "pg1's processes are the same", 1)
    assert [start_ticks(pid) for pid in before] == ticks
    cluster.assert_healthy()
