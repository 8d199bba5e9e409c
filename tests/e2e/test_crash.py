"""Killing and freezing processes: everything comes back and no acknowledged row is lost."""

import os
import signal

import psycopg2
import pytest

from utils import (Writer, children_of, cmdline, frozen, hold_true, is_alive, kill, start_ticks, wait_gone,
                   wait_until)

ENDLESS_WRITER = """
    DO $$ BEGIN
        LOOP
            INSERT INTO stamped (at) VALUES (clock_timestamp());
            COMMIT;
        END LOOP;
    END $$"""


def start_endless_writer(cluster, backends=2):
    """Backends that commit on their own without asking any client; their pids."""
    cluster.sql("CREATE TABLE stamped (id bigserial, at timestamptz)")
    pids = []
    for _ in range(backends):
        conn = cluster.connect(async_=True)
        wait_until(lambda: conn.poll() == psycopg2.extensions.POLL_OK, "an asynchronous connection")
        pids.append(conn.get_backend_pid())
        conn.cursor().execute(ENDLESS_WRITER)
    wait_until(lambda: cluster.value("SELECT count(*) FROM stamped") > 100, "rows")
    return pids


def new_postmaster(cluster, node, old):
    """Wait for another server on the node that answers; its pid."""
    wait_until(lambda: cluster.postmaster_pid(node) not in (None, old), f"a new server on {node}")
    wait_until(lambda: cluster.answers(node), f"{node} to answer")
    return cluster.postmaster_pid(node)


def events(cluster, node):
    return [h["event"] for h in cluster.history() if h["node"] == node]


# -- the postmaster -------------------------------------------------------------------------------


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGSEGV, signal.SIGQUIT])
def test_dead_postmaster_is_restarted_in_place(fresh_pair, sig):
    guard, agent, old = fresh_pair.pids("pg1")
    writer = Writer(fresh_pair)
    writer.start()
    writer.wait_for(20)
    kill(old, sig)
    new_postmaster(fresh_pair, "pg1", old)
    writer.wait_for(20)
    writer.stop()
    writer.assert_nothing_lost()
    assert (fresh_pair.guard_pid("pg1"), fresh_pair.agent_pid("pg1")) == (guard, agent)
    assert fresh_pair.leader()["holder"] == "pg1" and fresh_pair.leader()["epoch"] == 1
    fresh_pair.assert_healthy()
    fresh_pair.wait_same("SELECT count(*), max(id) FROM written")


def test_history_tells_the_crash_and_the_restart(fresh_pair):
    old = fresh_pair.postmaster_pid("pg1")
    before = len(fresh_pair.history())
    kill(old)
    new_postmaster(fresh_pair, "pg1", old)
    entries = wait_until(
        lambda: len(h := fresh_pair.history()[before:]) >= 2 and h, "entries in the history")
    assert entries[0]["event"] == "crash" and entries[0]["node"] == "pg1"
    assert entries[1]["event"] in ("restart", "start")
    assert all(e["reason"] for e in entries), entries


def test_orphans_commit_nothing_after_the_reap(fresh_pair):
    """Backends outlive a killed postmaster and go on committing; not beside the next server."""
    backends = start_endless_writer(fresh_pair)
    ticks = {pid: start_ticks(pid) for pid in backends}
    old = fresh_pair.postmaster_pid("pg1")
    kill(old)
    wait_until(lambda: fresh_pair.postmaster_pid("pg1") not in (None, old), "a new server",
               interval=0.002)
    survivors = [pid for pid in backends if is_alive(pid) and start_ticks(pid) == ticks[pid]]
    assert not survivors, "old backends live beside the new server"
    new_postmaster(fresh_pair, "pg1", old)
    late = fresh_pair.value("SELECT count(*) FROM stamped WHERE at >= pg_postmaster_start_time()")
    assert late == 0
    count = fresh_pair.value("SELECT count(*) FROM stamped")
    hold_true(lambda: fresh_pair.value("SELECT count(*) FROM stamped") == count,
              "nobody writes any more", 0.5)
    fresh_pair.wait_same("SELECT count(*), max(id) FROM stamped")


def test_a_frozen_backend_does_not_block_the_restart(fresh_pair):
    backend = fresh_pair.connect().get_backend_pid()
    old = fresh_pair.postmaster_pid("pg1")
    with frozen(backend):
        kill(old)
        wait_until(lambda: fresh_pair.postmaster_pid("pg1") not in (None, old), "a new server", 10)
        wait_until(lambda: fresh_pair.answers("pg1"), "pg1 to answer", 10)
        assert not is_alive(backend)
    fresh_pair.assert_healthy()


def test_dead_backend_is_postgresqls_own_business(fresh_pair):
    conn = fresh_pair.connect()
    pids = fresh_pair.pids("pg1")
    kill(conn.get_backend_pid())
    wait_until(lambda: fresh_pair.answers("pg1"), "pg1 to answer again")
    assert fresh_pair.pids("pg1") == pids, "the postmaster restarted its children itself"
    fresh_pair.assert_healthy()


def test_killed_again_and_again(fresh_single):
    writer = Writer(fresh_single)
    writer.start()
    for _ in range(5):
        writer.wait_for(5)
        old = fresh_single.postmaster_pid("pg1")
        kill(old)
        new_postmaster(fresh_single, "pg1", old)
    writer.stop()
    writer.assert_nothing_lost()


def test_killed_while_it_starts(fresh_single):
    """Crash recovery that is itself killed, several times."""
    fresh_single.sql("CREATE TABLE t AS SELECT generate_series(1, 100000) AS x")
    old = fresh_single.postmaster_pid("pg1")
    for _ in range(3):
        kill(old)
        wait_until(lambda: fresh_single.postmaster_pid("pg1") not in (None, old), "a new server",
                   interval=0.003)
        old = fresh_single.postmaster_pid("pg1")
    wait_until(lambda: fresh_single.answers("pg1"), "pg1 to answer")
    assert fresh_single.value("SELECT count(*) FROM t") == 100000


def test_dead_replica_is_restarted_and_catches_up(fresh_pair):
    old = fresh_pair.postmaster_pid("pg2")
    kill(old)
    fresh_pair.sql("CREATE TABLE meanwhile AS SELECT generate_series(1, 1000) AS x")
    new_postmaster(fresh_pair, "pg2", old)
    fresh_pair.assert_healthy()
    assert fresh_pair.wait_same("SELECT count(*) FROM meanwhile") == [(1000,)]


def test_both_servers_at_once(fresh_pair):
    old = {n: fresh_pair.postmaster_pid(n) for n in fresh_pair.names}
    for pid in old.values():
        kill(pid)
    for node, pid in old.items():
        new_postmaster(fresh_pair, node, pid)
    fresh_pair.assert_healthy()


def test_a_clean_stop_by_hand_is_not_forever(fresh_single):
    """Somebody runs pg_ctl stop: the agent's wish is that the node runs."""
    old = fresh_single.postmaster_pid("pg1")
    kill(old, signal.SIGINT)
    new_postmaster(fresh_single, "pg1", old)


# -- the agent ------------------------------------------------------------------------------------


def new_agent(cluster, node, old):
    wait_until(lambda: cluster.agent_pid(node) not in (None, old), f"a new agent of {node}")
    pid = cluster.agent_pid(node)
    wait_until(lambda: cluster.beacon(node).get("agent_pid") == pid, "the new agent's beacon")
    return pid


@pytest.mark.parametrize("node", ["pg1", "pg2"])
def test_dead_agent_is_replaced_and_adopts_the_server(fresh_pair, node):
    guard, agent, postmaster = fresh_pair.pids(node)
    conn = fresh_pair.connect(node)
    kill(agent)
    new_agent(fresh_pair, node, agent)
    assert fresh_pair.postmaster_pid(node) == postmaster and fresh_pair.guard_pid(node) == guard
    with conn.cursor() as cursor:
        cursor.execute("SELECT 1")
    wait_until(lambda: fresh_pair.beacon(node).get("ready"), "the new agent to call it ready")
    fresh_pair.assert_healthy()
    assert not [e for e in events(fresh_pair, node) if e == "crash"]


def test_the_new_agent_watches_the_adopted_server(fresh_pair):
    agent, postmaster = fresh_pair.agent_pid("pg1"), fresh_pair.postmaster_pid("pg1")
    kill(agent)
    new_agent(fresh_pair, "pg1", agent)
    kill(postmaster)
    new_postmaster(fresh_pair, "pg1", postmaster)
    fresh_pair.assert_healthy()


def test_agent_and_server_die_together(fresh_pair):
    _, agent, postmaster = fresh_pair.pids("pg1")
    kill(agent)
    kill(postmaster)
    new_postmaster(fresh_pair, "pg1", postmaster)
    fresh_pair.assert_healthy()


def test_agent_killed_again_and_again(fresh_single):
    postmaster = fresh_single.postmaster_pid("pg1")
    for _ in range(4):
        old = fresh_single.agent_pid("pg1")
        kill(old)
        wait_until(lambda: fresh_single.agent_pid("pg1") not in (None, old), "a new agent")
    assert fresh_single.postmaster_pid("pg1") == postmaster
    fresh_single.assert_healthy()


def test_down_without_an_agent(fresh_single):
    """The guard alone stops the server cleanly."""
    agent = fresh_single.agent_pid("pg1")
    with frozen(agent):
        guard = fresh_single.guard_pid("pg1")
        kill(guard, signal.SIGTERM)
        kill(agent)
        wait_gone(guard, "the guard", 20)
    fresh_single.assert_nothing_runs()
    assert fresh_single.data("pg1").joinpath("global/pg_control").read_bytes()[16] == 1
    fresh_single.up()


@pytest.mark.slow
def test_frozen_agent_is_replaced(fresh_pair):
    """The guard gives a silent agent 20 s."""
    _, agent, postmaster = fresh_pair.pids("pg1")
    with frozen(agent):
        wait_gone(agent, "the frozen agent", 45)
    new_agent(fresh_pair, "pg1", agent)
    assert fresh_pair.postmaster_pid("pg1") == postmaster
    fresh_pair.assert_healthy()


# -- the guard ------------------------------------------------------------------------------------


@pytest.mark.parametrize("node", ["pg1", "pg2"])
def test_dead_guard_is_started_again_by_a_peer(fresh_pair, node):
    guard, agent, postmaster = fresh_pair.pids(node)
    writer = Writer(fresh_pair)
    writer.start()
    writer.wait_for(20)
    kill(guard)
    wait_until(lambda: fresh_pair.guard_pid(node) not in (None, guard), f"a new guard of {node}")
    wait_gone(agent, "the agent of the dead guard")
    wait_gone(postmaster, "the server of the dead guard")
    wait_until(lambda: fresh_pair.answers(node), f"{node} to answer")
    writer.wait_for(20)
    writer.stop()
    writer.assert_nothing_lost()
    fresh_pair.assert_healthy()
    fresh_pair.wait_same("SELECT count(*), max(id) FROM written")


@pytest.mark.parametrize("node", ["pg1", "pg2"])
def test_guard_that_dies_right_after_up(fresh_pair, node):
    """Its peer may not have noticed it yet."""
    guard = fresh_pair.guard_pid(node)
    kill(guard)
    wait_until(lambda: fresh_pair.guard_pid(node) not in (None, guard), f"a new guard of {node}")
    fresh_pair.assert_healthy()


def test_dead_guard_takes_writing_backends_with_it(fresh_single):
    backends = start_endless_writer(fresh_single)
    agent, postmaster = fresh_single.agent_pid("pg1"), fresh_single.postmaster_pid("pg1")
    kill(fresh_single.guard_pid("pg1"))
    for pid in [agent, postmaster, *backends]:
        wait_gone(pid, deadline=10)
    fresh_single.up()
    assert fresh_single.value(
        "SELECT count(*) FROM stamped WHERE at >= pg_postmaster_start_time()") == 0
    fresh_single.assert_healthy()


def test_dead_guard_and_a_frozen_backend(fresh_single):
    """The postgres lock keeps the next server from starting beside the frozen one."""
    backend = fresh_single.connect().get_backend_pid()
    postmaster = fresh_single.postmaster_pid("pg1")
    with frozen(backend):
        kill(fresh_single.guard_pid("pg1"))
        fresh_single.up(timeout=60)
        assert not is_alive(backend), "two servers would share the data"
        assert fresh_single.postmaster_pid("pg1") != postmaster
    fresh_single.assert_healthy()


def test_guard_and_agent_die_together(fresh_pair):
    for node in fresh_pair.names:
        guard, agent, postmaster = fresh_pair.pids(node)
        kill(guard)
        kill(agent)
        wait_gone(postmaster, f"the server of {node}")
        wait_until(lambda: fresh_pair.guard_pid(node) not in (None, guard), f"a guard of {node}")
        wait_until(lambda: fresh_pair.answers(node), f"{node} to answer")
    fresh_pair.assert_healthy()


def test_all_guards_die_at_once_and_up_mends_it(fresh_pair):
    guards = [fresh_pair.guard_pid(n) for n in fresh_pair.names]
    for pid in guards:
        os.kill(pid, signal.SIGSTOP)  # so that none can start the other
    for pid in guards:
        kill(pid)
        wait_gone(pid)
    fresh_pair.up()
    assert not set(guards) & {fresh_pair.guard_pid(n) for n in fresh_pair.names}
    fresh_pair.assert_healthy()


def test_a_stopped_node_is_not_started_by_peers(fresh_pair):
    guard = fresh_pair.guard_pid("pg2")
    kill(guard, signal.SIGTERM)
    wait_gone(guard, "the guard of pg2", 20)
    hold_true(lambda: fresh_pair.guard_pid("pg2") is None, "pg2 stays down", 1.5)
    fresh_pair.up()
    fresh_pair.assert_healthy()


# -- everything -----------------------------------------------------------------------------------


def test_power_failure(fresh_pair):
    writer = Writer(fresh_pair)
    writer.start()
    writer.wait_for(100)
    fresh_pair.kill_all()
    writer.stop()
    fresh_pair.up()
    writer.assert_nothing_lost()
    fresh_pair.assert_healthy()
    fresh_pair.wait_same("SELECT count(*), max(id) FROM written")


def test_power_failure_leaves_nothing_in_run_that_matters(fresh_pair):
    fresh_pair.kill_all()
    for path in sorted(fresh_pair.path("run").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    fresh_pair.up()
    fresh_pair.assert_healthy()


def test_power_failure_during_up(cluster):
    for what in ("data/pg1.new", "data/pg1/postmaster.pid", "data/pg2.new"):
        up = cluster.start("up")
        wait_until(lambda: cluster.path(what).exists() or up.process.poll() is not None, what,
                   interval=0.003)
        up.end()
        cluster.kill_all()
    cluster.up()
    cluster.assert_healthy()


def test_no_zombies_stay(fresh_single):
    for _ in range(2):
        old = fresh_single.postmaster_pid("pg1")
        kill(old)
        new_postmaster(fresh_single, "pg1", old)
    guard = fresh_single.guard_pid("pg1")
    wait_until(lambda: len([p for p in children_of(guard)]) == 2,
               "the guard to have no children but agent and postmaster")


# -- somebody drops a slot --------------------------------------------------------------------------


def test_a_dropped_slot_is_made_again(fresh_pair):
    """The replica asks for its slot by name and would never come back without it."""
    drop = ("SELECT pg_terminate_backend(active_pid), pg_drop_replication_slot(slot_name)"
            " FROM pg_replication_slots WHERE slot_name = 'pg2'")

    def dropped():
        fresh_pair.sql(drop)  # an error while its sender still lives
        return True

    sender = "SELECT pid FROM pg_stat_replication"
    before = fresh_pair.value(sender)
    wait_until(dropped, "the slot to be dropped")
    wait_until(lambda: fresh_pair.value(sender) != before, "another sender")
    fresh_pair.wait_streaming("pg2")
    fresh_pair.assert_healthy()


# -- the last words of a server ---------------------------------------------------------------------


def test_the_logger_writes_to_the_end(fresh_pair):
    """Lines that are still in its pipe when the postmaster ends are not lost with it."""
    postmaster = fresh_pair.postmaster_pid("pg1")
    logger, = (pid for pid in children_of(postmaster) if ": logger" in cmdline(pid))
    with frozen(logger):
        down = fresh_pair.start("down")
        wait_gone(postmaster)
        assert is_alive(logger)
    down.wait().ok()
    assert "database system is shut down" in fresh_pair.server_log("pg1")
