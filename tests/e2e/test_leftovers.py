"""What an earlier server left behind is ended; what others run in the data directory is not."""

import os
import signal
import sys

import pytest

from utils import (SERVER_USER, frozen, hold_true, is_alive, kill, wait_gone, wait_until)

BUSY = "'postgres'; import signal; print('ready', flush=True); signal.pause()"


def new_server(cluster, node, old, deadline=30):
    wait_until(lambda: cluster.postmaster_pid(node) not in (None, old), f"a new server on {node}",
               deadline)
    wait_until(lambda: cluster.answers(node), f"{node} to answer", deadline)
    return cluster.postmaster_pid(node)


# -- leftovers of the node's own server -----------------------------------------------------------


@pytest.mark.parametrize("node", ["pg1", "pg2"])
def test_guard_and_server_die_while_a_backend_is_frozen(fresh_pair, node):
    """Nobody reaps the backend, which holds the lock: the node comes back all the same."""
    backend = fresh_pair.connect(node).get_backend_pid()
    guard, _, postmaster = fresh_pair.pids(node)
    with frozen(backend):
        kill(guard)
        kill(postmaster)
        wait_until(lambda: fresh_pair.guard_pid(node) not in (None, guard), f"a guard of {node}")
        new_server(fresh_pair, node, postmaster, 20)
        assert not is_alive(backend), "two servers share the data"
    assert str(backend) in fresh_pair.node_log(node), "its end is not told"
    fresh_pair.assert_healthy()


# -- processes of others --------------------------------------------------------------------------


@pytest.fixture
def visitor(fresh_pair):
    """Another program, of the same user, that stands in pg1's data directory."""
    running = fresh_pair.start(argv=[sys.executable, "-c", BUSY], user=SERVER_USER,
                               cwd=fresh_pair.data("pg1"))
    wait_until(lambda: "ready" in running.out, "the visitor to stand in the data directory")
    assert os.path.samefile(f"/proc/{running.pid}/cwd", fresh_pair.data("pg1"))
    return running


def test_a_visitor_survives_every_end_of_the_server(fresh_pair, visitor):
    def unhurt():
        return visitor.process.poll() is None

    old = fresh_pair.postmaster_pid("pg1")
    kill(old)
    old = new_server(fresh_pair, "pg1", old)
    assert unhurt(), "killed with the crashed server"
    fresh_pair.down()
    assert unhurt(), "killed by down"
    fresh_pair.up()
    assert unhurt(), "killed by up"
    fresh_pair.assert_healthy()


def test_a_visitor_survives_the_hunt_for_leftovers(fresh_pair, visitor):
    """The agent ends what holds the lock, not whoever stands beside it."""
    backend = fresh_pair.connect("pg1").get_backend_pid()
    guard, _, postmaster = fresh_pair.pids("pg1")
    with frozen(backend):
        kill(guard)
        kill(postmaster)
        new_server(fresh_pair, "pg1", postmaster)
    assert not is_alive(backend)
    assert visitor.process.poll() is None
    fresh_pair.assert_healthy()


def test_a_visitor_survives_a_down_that_ends_leftovers(fresh_pair, visitor):
    backend = fresh_pair.connect("pg1").get_backend_pid()
    guards = [fresh_pair.guard_pid(node) for node in fresh_pair.names]
    agents = [fresh_pair.agent_pid(node) for node in fresh_pair.names]
    with frozen(backend, *agents):  # so that none can start the other's guard
        for pid in guards + agents:
            kill(pid)
            wait_gone(pid)
        fresh_pair.down()
        assert not is_alive(backend)
    assert visitor.process.poll() is None
    fresh_pair.assert_nothing_runs()
    fresh_pair.up()
    assert visitor.process.poll() is None
    fresh_pair.assert_healthy()


# -- down -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_down_with_a_frozen_agent(fresh_pair):
    """It cannot say that it was told to stop, and its sibling must not start the node again."""
    guards = [fresh_pair.guard_pid(node) for node in fresh_pair.names]
    os.kill(fresh_pair.agent_pid("pg1"), signal.SIGSTOP)
    fresh_pair.run("down", timeout=60).ok()
    fresh_pair.assert_nothing_runs(0.5)
    hold_true(lambda: not fresh_pair.processes(), "everything stays down", 2)
    assert not any(is_alive(pid) for pid in guards)
    for node in fresh_pair.names:
        control = fresh_pair.data(node).joinpath("global/pg_control").read_bytes()
        assert control[16] in (1, 2), f"{node} was not shut down cleanly"
    fresh_pair.up()
    fresh_pair.assert_healthy()
