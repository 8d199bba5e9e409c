"""`restart`: one node, all, one after the other, with settings that must change in an order."""

import os
import signal

import pytest

from utils import Writer, frozen, is_alive, wait_until


def started(cluster, node):
    return cluster.value("SELECT pg_postmaster_start_time()", node)


def test_restart_everything(fresh_pair):
    before = {n: started(fresh_pair, n) for n in fresh_pair.names}
    fresh_pair.run("restart").ok()
    for node in fresh_pair.names:
        assert started(fresh_pair, node) > before[node]
    fresh_pair.assert_healthy()


@pytest.mark.parametrize("node,other", [("pg1", "pg2"), ("pg2", "pg1")])
def test_restart_one(fresh_pair, node, other):
    before = {n: started(fresh_pair, n) for n in fresh_pair.names}
    guard, agent = fresh_pair.guard_pid(node), fresh_pair.agent_pid(node)
    fresh_pair.run("restart", node).ok()
    assert started(fresh_pair, node) > before[node]
    assert started(fresh_pair, other) == before[other]
    assert (fresh_pair.guard_pid(node), fresh_pair.agent_pid(node)) == (guard, agent)
    fresh_pair.assert_healthy()


def test_rolling_restart_is_one_by_one(make_cluster):
    cluster = make_cluster(nodes=3, up=True)
    cluster.run("restart", "--rolling").ok()
    times = {n: started(cluster, n) for n in cluster.names}
    assert len(set(times.values())) == 3
    assert times["pg1"] == max(times.values()), "the primary comes last"
    cluster.assert_healthy()


def test_nothing_acknowledged_is_lost(fresh_pair):
    writer = Writer(fresh_pair)
    writer.start()
    writer.wait_for(50)
    fresh_pair.run("restart", "--rolling").ok()
    writer.wait_for(50)
    writer.stop()
    writer.assert_nothing_lost()
    fresh_pair.wait_same("SELECT count(*) FROM written")


@pytest.mark.parametrize("value", ["150", "60"], ids=["raised", "lowered"])
def test_settings_that_a_replica_must_not_have_lower(fresh_pair, value):
    """Raised, the replica must have it first; lowered, the primary. Otherwise it will not start."""
    fresh_pair.run("config", "set", "postgres.max_connections", value).ok()
    fresh_pair.run("restart", "--rolling").ok()
    for node in fresh_pair.names:
        wait_until(lambda: fresh_pair.show("max_connections", node) == value,
                   f"max_connections = {value} on {node}")
    fresh_pair.assert_healthy()


def test_restart_of_one_replica_with_a_lowered_setting_still_starts(fresh_pair):
    fresh_pair.run("config", "set", "postgres.max_connections", "60").ok()
    fresh_pair.run("restart", "pg2").ok()
    assert int(fresh_pair.show("max_connections", "pg2")) >= int(fresh_pair.show("max_connections"))
    fresh_pair.assert_healthy()


def test_restart_with_a_mistake_in_the_settings_leaves_servers_alone(fresh_pair):
    before = {n: fresh_pair.postmaster_pid(n) for n in fresh_pair.names}
    fresh_pair.edit("config/primary.conf", lambda t: t + "\nshared_bufers = 1GB\n")
    fresh_pair.run("restart").fails(1, r"config/primary\.conf:\d+:")
    assert {n: fresh_pair.postmaster_pid(n) for n in fresh_pair.names} == before


def test_restart_with_a_value_that_the_machine_refuses(fresh_single):
    """PostgreSQL accepts the value and then cannot start: say so, and recover when mended."""
    fresh_single.run("config", "set", "postgres.shared_buffers", "7000GB").ok()
    fresh_single.run("restart", "--timeout", "10").fails(1, "pg1")
    fresh_single.run("config", "set", "postgres.shared_buffers", "32MB").ok()
    fresh_single.up()
    assert fresh_single.show("shared_buffers") == "32MB"


def test_two_restarts_at_once(fresh_pair):
    running = [fresh_pair.start("restart", node) for node in fresh_pair.names]
    for each in running:
        result = each.wait()
        if result.code != 0:
            result.fails(1, ["operation|under way", "hint: "])
    fresh_pair.run("restart").ok()
    fresh_pair.assert_healthy()


def test_interrupted_restart(fresh_pair):
    restart = fresh_pair.start("restart", "--rolling")
    wait_until(lambda: fresh_pair.record("op") or restart.process.poll() is not None,
               "the operation to be recorded", interval=0.003)
    restart.signal(signal.SIGINT)
    restart.wait(15)
    fresh_pair.up()
    fresh_pair.run("restart").ok()
    fresh_pair.assert_healthy()


@pytest.mark.parametrize("what", ["postmaster", "backend"])
def test_restart_of_a_frozen_server(fresh_pair, what):
    """It hears neither SIGINT nor, when the postmaster itself is frozen, SIGQUIT."""
    fresh_pair.run("config", "set", "cluster.stop_timeout", "1s").ok()
    fresh_pair.run("config", "reload").ok()
    old = fresh_pair.postmaster_pid("pg2")
    backend = fresh_pair.connect("pg2").get_backend_pid()
    os.kill(old if what == "postmaster" else backend, signal.SIGSTOP)
    fresh_pair.run("restart", "pg2", "--timeout", "40").ok()
    assert fresh_pair.postmaster_pid("pg2") not in (None, old)
    assert not is_alive(backend) and not is_alive(old)
    fresh_pair.assert_healthy()


def test_a_stop_that_was_asked_for_is_no_problem_of_the_server(fresh_pair):
    """What it disconnects stands in its own log, not among what went wrong."""
    said = "due to administrator command"
    fresh_pair.connect("pg1")
    fresh_pair.connect("pg2")
    fresh_pair.run("restart").ok()
    fresh_pair.down()
    for node in fresh_pair.names:
        assert said in fresh_pair.server_log(node) and said not in fresh_pair.node_log(node), node


def test_a_connection_ended_by_somebody_else_is_still_told(fresh_single):
    fresh_single.run("restart").ok()
    pid = fresh_single.connect().get_backend_pid()
    fresh_single.sql("SELECT pg_terminate_backend(%s)", params=(pid,))
    wait_until(lambda: "due to administrator command" in fresh_single.node_log("pg1"), "the line")


def wait_for_op(cluster, kind):
    wait_until(lambda: (cluster.record("op") or {}).get("kind") == kind, f"the {kind} in the store",
               interval=0.01)


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_restart_stands_in_nobodys_way(fresh_pair, sig):
    """The server is frozen, so that the restart cannot end; nor would it when it is interrupted."""
    with frozen(fresh_pair.postmaster_pid("pg2")):
        restart = fresh_pair.start("restart", "pg2")
        wait_for_op(fresh_pair, "restart")
        restart.signal(sig)
        restart.wait(5).fails(1, "restart: interrupted while waiting for pg2")
        assert fresh_pair.record("op")["phase"] == "failed"
        fresh_pair.run("config", "set", "work_mem", "7MB", timeout=20).ok()
    for node in fresh_pair.names:
        wait_until(lambda: fresh_pair.answers(node) and fresh_pair.show("work_mem", node) == "7MB",
                   f"the new value on {node}")
    fresh_pair.run("restart").ok()
    fresh_pair.assert_healthy()


def test_a_killed_restart_stands_in_the_way_only_for_its_time(fresh_pair):
    with frozen(fresh_pair.postmaster_pid("pg2")):
        restart = fresh_pair.start("restart", "pg2", "--timeout", "4")
        wait_for_op(fresh_pair, "restart")
        restart.signal(signal.SIGKILL)
        restart.wait(5)
        fresh_pair.run("restart", "pg1").fails(1, "under way")
        wait_until(lambda: fresh_pair.run("config", "set", "work_mem", "7MB").code == 0,
                   "the killed command's time to pass")
    wait_until(lambda: fresh_pair.answers("pg2") and fresh_pair.show("work_mem", "pg2") == "7MB",
               "the new value on pg2")
    fresh_pair.assert_healthy()


def test_a_setting_that_breaks_connections_is_taken_back(fresh_pair):
    """A library that vanished: the restart cannot see the server's role and never ends."""
    library = fresh_pair.base / "gone"
    fresh_pair.write("config/replica.conf", f"session_preload_libraries = '{library}'\n")
    fresh_pair.run("config", "reload").ok()
    restart = fresh_pair.start("restart", "pg2")
    wait_for_op(fresh_pair, "restart")
    restart.signal(signal.SIGINT)
    restart.wait(5).fails(1, "restart: interrupted")
    fresh_pair.write("config/replica.conf", "")
    fresh_pair.run("config", "reload").ok()
    wait_until(lambda: fresh_pair.answers("pg2"), "pg2 to take connections")
    fresh_pair.assert_healthy()
