"""The leader's record is gone, or names a node that pgduet.conf does not know."""

import os
import re
import signal

import pytest

from utils import Writer, hold_true, kill, wait_until


def error_of(cluster, node):
    return str(cluster.beacon(node).get("error"))


@pytest.fixture
def without_leader(fresh_pair):
    """A running pair whose store has lost the record of the leader, and who brings it back."""
    away = fresh_pair.path("store/leader.away")
    os.rename(fresh_pair.path("store/leader"), away)

    def back():
        made = fresh_pair.path("store/leader")
        if made.exists():       # an agent watches the place; a record would be a file in it
            assert not list(made.iterdir()), "somebody made a record of a leader"
            made.rmdir()
        os.rename(away, fresh_pair.path("store/leader"))

    return back


def assert_told(cluster):
    """Both nodes and `status` tell that the store is not what it was."""
    for node in cluster.names:
        wait_until(lambda: "store" in error_of(cluster, node), f"{node} to tell what is wrong", 15)
    out = cluster.run("status").ok().out
    for node in cluster.names:
        assert re.search(rf"^{node}: .*store", out, re.M), f"status does not tell it:\n{out}"


def test_the_primary_goes_on_without_the_leaders_record(fresh_pair, without_leader):
    pids = [fresh_pair.pids(node) for node in fresh_pair.names]
    writer = Writer(fresh_pair)
    writer.start()
    assert_told(fresh_pair)
    writer.wait_for(50)
    hold_true(lambda: [fresh_pair.pids(node) for node in fresh_pair.names] == pids,
              "the same processes run", 2)
    writer.wait_for(50)
    without_leader()
    wait_until(lambda: not any("store" in error_of(fresh_pair, n) for n in fresh_pair.names),
               "the error to go")
    writer.wait_for(50)
    writer.stop()
    writer.assert_nothing_lost()
    assert [fresh_pair.pids(node) for node in fresh_pair.names] == pids
    assert fresh_pair.leader()["epoch"] == 1 and fresh_pair.leader()["holder"] == "pg1"
    fresh_pair.assert_healthy()


def replace_agents(cluster):
    for node in cluster.names:
        old = cluster.agent_pid(node)
        kill(old)
        wait_until(lambda: cluster.agent_pid(node) not in (None, old), f"an agent of {node}")
        pid = cluster.agent_pid(node)
        wait_until(lambda: cluster.beacon(node).get("agent_pid") == pid, "its beacon")


def test_agents_that_never_saw_the_record_leave_the_servers_alone(fresh_pair, without_leader):
    """Neither stopped nor given other settings: the replica streams on."""
    servers = [fresh_pair.postmaster_pid(node) for node in fresh_pair.names]
    receiver = fresh_pair.value("SELECT pid FROM pg_stat_wal_receiver", "pg2")
    replace_agents(fresh_pair)
    fresh_pair.sql("CREATE TABLE meanwhile AS SELECT 1 AS x")
    hold_true(lambda: [fresh_pair.postmaster_pid(n) for n in fresh_pair.names] == servers,
              "the servers go on", 2)
    fresh_pair.sql("INSERT INTO meanwhile VALUES (2)")
    assert fresh_pair.sql("SELECT pid FROM pg_stat_wal_receiver", "pg2") == [(receiver,)], \
        "the replica was disconnected from its primary"
    fresh_pair.wait_same("SELECT count(*) FROM meanwhile", 5)
    without_leader()
    wait_until(lambda: all(fresh_pair.beacon(n).get("ready") for n in fresh_pair.names),
               "both nodes to be ready again")
    assert [fresh_pair.postmaster_pid(n) for n in fresh_pair.names] == servers
    fresh_pair.assert_healthy()


def test_agents_that_never_saw_the_record_tell_it(fresh_pair, without_leader):
    replace_agents(fresh_pair)
    assert_told(fresh_pair)
    without_leader()
    wait_until(lambda: not any("store" in error_of(fresh_pair, n) for n in fresh_pair.names),
               "the error to go")
    fresh_pair.assert_healthy()


def test_down_without_the_leaders_record(fresh_pair, without_leader):
    fresh_pair.down()
    fresh_pair.assert_nothing_runs()
    without_leader()
    fresh_pair.up()
    fresh_pair.assert_healthy()


# -- a leader that pgduet.conf does not know ------------------------------------------------------


@pytest.fixture
def renamed(fresh_pair):
    """Down; pg2 has no data, and pgduet.conf calls the leader by another name."""
    fresh_pair.down()
    os.rename(fresh_pair.data("pg2"), fresh_pair.base / "pg2.away")
    fresh_pair.edit("pgduet.conf", lambda t: t.replace("[node pg1]", "[node other]"))
    return fresh_pair


def rename_back(cluster):
    cluster.edit("pgduet.conf", lambda t: t.replace("[node other]", "[node pg1]"))
    cluster.up()
    cluster.assert_healthy()


def test_up_tells_that_the_leader_was_renamed(renamed):
    renamed.run("up", "--timeout", "10").fails(1, ["other|pg1", "hint: "])
    renamed.assert_nothing_runs()
    assert not renamed.data("other").exists()
    rename_back(renamed)


def test_a_replica_without_data_tells_that_the_leader_was_renamed(renamed):
    agent = renamed.start("agent", "pg2")
    wait_until(lambda: "pg1" in error_of(renamed, "pg2") and "pgduet.conf" in
               error_of(renamed, "pg2"), "pg2 to tell what is wrong")
    pid = renamed.agent_pid("pg2")
    hold_true(lambda: renamed.agent_pid("pg2") == pid, "the agent lives", 1)
    log = renamed.node_log("pg2") + agent.out + agent.err
    assert "ended by signal" not in log and "agent ended" not in log, log
    assert not renamed.data("pg2").exists()
    agent.signal(signal.SIGTERM)
    agent.wait(20).ok()
    rename_back(renamed)


def test_the_leader_is_renamed_while_a_replica_runs(fresh_pair):
    """A reload that does not know the leader takes nobody's connection to it away."""
    pids = [fresh_pair.pids(node) for node in fresh_pair.names]
    receiver = fresh_pair.value("SELECT pid FROM pg_stat_wal_receiver", "pg2")
    fresh_pair.edit("pgduet.conf", lambda t: t.replace("[node pg1]", "[node other]"))
    result = fresh_pair.run("config", "reload", timeout=30)
    assert re.search(r"pgduet: .*(pg1|other)", result.err), result
    hold_true(lambda: [fresh_pair.pids(node) for node in fresh_pair.names] == pids,
              "the same processes run", 2)
    assert fresh_pair.sql("SELECT pid FROM pg_stat_wal_receiver", "pg2") == [(receiver,)], \
        f"the replica was disconnected from its primary by\n{result}"
    fresh_pair.edit("pgduet.conf", lambda t: t.replace("[node other]", "[node pg1]"))
    fresh_pair.run("config", "reload").ok()
    fresh_pair.assert_healthy()
