"""`up`, `down` and `agent`: from nothing to a streaming replica and back, in any order."""

import os
import shutil
import signal

import pytest

from utils import (IS_ROOT, cmdline, comm, is_alive, owner_of, parent_of, read_if_there, stop_node,
                   wait_gone, wait_until)


def postmasters(cluster):
    return {node: cluster.postmaster_pid(node) for node in cluster.names}


def control_state(cluster, node):
    """PostgreSQL's DBState: an int32 behind system id, version, catalog version of pg_control."""
    return cluster.data(node).joinpath("global/pg_control").read_bytes()[16]


SHUT_DOWN, SHUT_DOWN_IN_RECOVERY = 1, 2


# -- up -------------------------------------------------------------------------------------------


def test_up_from_nothing(cluster):
    result = cluster.up()
    for node in cluster.names:  # clients of both may come as soon as `up` says so
        assert cluster.value("SELECT current_database()", node) == "myapp"
    cluster.sql("CREATE TABLE t (x int)")
    cluster.sql("INSERT INTO t VALUES (42)")
    cluster.wait_same("SELECT x FROM t")
    assert cluster.value("SELECT pg_is_in_recovery()", "pg1") is False
    assert cluster.value("SELECT pg_is_in_recovery()", "pg2") is True
    assert cluster.streams("pg2"), f"up returned before the replica streams:\n{result}"


def test_up_again_is_harmless(fresh_pair):
    before = {n: (fresh_pair.pids(n)) for n in fresh_pair.names}
    result = fresh_pair.up()
    assert {n: (fresh_pair.pids(n)) for n in fresh_pair.names} == before
    assert result.seconds < 5
    fresh_pair.assert_healthy()


@pytest.mark.parametrize("nodes", [1, 4])
def test_other_numbers_of_nodes(make_cluster, nodes):
    cluster = make_cluster(nodes=nodes, up=True)
    cluster.assert_healthy()
    senders = cluster.value("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")
    assert senders == nodes - 1


def test_eight_nodes(make_cluster):
    make_cluster(nodes=8, up=True).assert_healthy()


def test_up_leaves_no_working_files(fresh_pair):
    names = wait_until(
        lambda: [set(os.listdir(fresh_pair.path("data"))) == {"pg1", "pg2"}],
        f"only finished data directories in {os.listdir(fresh_pair.path('data'))}")
    assert names


def test_up_after_down_keeps_everything(fresh_pair):
    fresh_pair.sql("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS x")
    before = fresh_pair.leader()
    fresh_pair.down()
    fresh_pair.up()
    assert fresh_pair.wait_same("SELECT count(*), sum(x) FROM kept") == [(1000, 500500)]
    after = fresh_pair.leader()
    assert (after["holder"], after["epoch"]) == (before["holder"], before["epoch"])
    assert fresh_pair.value("SELECT timeline_id FROM pg_control_checkpoint()") == 1


def test_the_database_exists_when_up_returns(make_cluster):
    cluster = make_cluster(nodes=1)
    cluster.edit("pgduet.conf", lambda t: t.replace("[cluster]", "[cluster]\ndatabase = shop", 1)
                 if "\ndatabase =" not in t else t.replace("database = myapp", "database = shop"))
    cluster.up()
    assert cluster.value("SELECT current_database()", dbname="shop") == "shop"


@pytest.mark.skipif(not IS_ROOT, reason="is about what root may enter and others may not")
def test_as_root_from_a_directory_the_servers_user_cannot_enter(cluster):
    private = cluster.base / "private"
    private.mkdir(mode=0o700)
    cluster.up(cwd=private)
    for command in (["status"], ["check"], ["psql", "--", "-c", "SELECT 1"], ["restart", "pg2"]):
        cluster.run(*command, cwd=private).ok()
    cluster.assert_healthy()
    cluster.down(cwd=private)


@pytest.mark.skipif(not IS_ROOT, reason="looks at the effect of dropping root")
def test_as_root_nothing_runs_as_root(fresh_pair):
    for pid in fresh_pair.processes():
        assert owner_of(pid) != 0, pid


def test_progress_goes_to_stderr(cluster):
    result = cluster.up()
    assert len(result.out.splitlines()) <= 1 and len(result.err.splitlines()) > 1, str(result)
    assert "\r" not in result.err and "\x1b" not in result.err, "no terminal codes in a file"


# -- two at once, interrupted ---------------------------------------------------------------------


@pytest.mark.parametrize("how_many", [2, 5])
def test_up_at_once_from_nothing(cluster, how_many):
    running = [cluster.start("up") for _ in range(how_many)]
    for each in running:
        each.wait().ok()
    cluster.assert_healthy()
    for node in cluster.names:
        guards = [p for p in cluster.processes()
                  if comm(p) == "pgduet-guard" and node in cmdline(p).split()]
        assert len(guards) == 1, f"{node} has guards {guards}"
    assert cluster.leader()["epoch"] == 1


MOMENTS = {
    "at once": lambda c: True,
    "a guard lives": lambda c: c.guard_pid("pg1"),
    "an agent lives": lambda c: c.agent_pid("pg1"),
    "initdb runs": lambda c: list(c.path("data").glob("*.new")),
    "the data directory is being made": lambda c: c.path("data/pg1.new").exists(),
    "the server starts": lambda c: c.data("pg1").joinpath("postmaster.pid").exists(),
    "the replica is being made": lambda c: c.path("data/pg2.new").exists(),
    "the replica starts": lambda c: c.data("pg2").joinpath("postmaster.pid").exists(),
}


def reach(cluster, running, moment):
    """Wait for the moment; a command that is already done has passed it."""
    wait_until(lambda: MOMENTS[moment](cluster) or running.process.poll() is not None,
               f"the moment '{moment}'", interval=0.003)


@pytest.mark.parametrize("moment", MOMENTS)
def test_interrupted_up_is_finished_by_the_next(cluster, moment):
    up = cluster.start("up")
    reach(cluster, up, moment)
    up.signal(signal.SIGINT)
    result = up.wait(15)
    assert result.code in (0, 1, 130, -signal.SIGINT), str(result)
    cluster.up()
    cluster.assert_healthy()


@pytest.mark.parametrize("moment", MOMENTS)
def test_down_while_starting(cluster, moment):
    up = cluster.start("up")
    reach(cluster, up, moment)
    cluster.down()
    up.wait(30)
    # An `up` that had not begun when `down` looked may start the nodes afterwards: say so again.
    cluster.down()
    cluster.assert_nothing_runs()
    cluster.up()
    cluster.assert_healthy()


def test_interrupted_down_is_finished_by_the_next(fresh_pair):
    down = fresh_pair.start("down")
    down.signal(signal.SIGINT)
    down.wait(30)
    fresh_pair.down()
    fresh_pair.assert_nothing_runs()
    fresh_pair.up()
    fresh_pair.assert_healthy()


# -- down -----------------------------------------------------------------------------------------


def test_down_stops_everything_cleanly(fresh_pair):
    fresh_pair.sql("CREATE TABLE t AS SELECT generate_series(1, 10000) AS x")
    pids = [pid for node in fresh_pair.names for pid in fresh_pair.pids(node)]
    assert len(pids) == 6
    fresh_pair.down()
    assert not [pid for pid in pids if is_alive(pid)]
    fresh_pair.assert_nothing_runs(deadline=0.5)
    for node in fresh_pair.names:
        assert not fresh_pair.data(node).joinpath("postmaster.pid").exists()
    assert control_state(fresh_pair, "pg1") == SHUT_DOWN
    assert control_state(fresh_pair, "pg2") == SHUT_DOWN_IN_RECOVERY


def test_down_again_is_harmless(fresh_pair):
    fresh_pair.down()
    fresh_pair.down()


def test_down_before_the_first_up(cluster):
    cluster.down()


def test_down_with_open_transactions(fresh_pair):
    conn = fresh_pair.connect()
    conn.autocommit = False
    with conn.cursor() as cursor:
        cursor.execute("CREATE TABLE never (x int)")
        fresh_pair.down()
    fresh_pair.assert_nothing_runs()
    fresh_pair.up()
    assert fresh_pair.value("SELECT to_regclass('never')") is None


def test_down_waits_for_the_replica_to_have_everything(fresh_pair):
    """A clean stop sends the last of the WAL; both control files end at the same checkpoint."""
    fresh_pair.sql("CREATE TABLE bulk AS SELECT generate_series(1, 50000) AS x")
    fresh_pair.down()
    fresh_pair.up()
    assert fresh_pair.wait_same("SELECT count(*) FROM bulk") == [(50000,)]


# -- one node in the foreground, as systemd and Docker do it ---------------------------------------


def serve(cluster, node):
    return cluster.start("agent", node)


def stop(running, sig=signal.SIGTERM):
    running.signal(sig)
    result = running.wait(30)
    assert result.code == 0, f"a clean stop must exit 0:\n{result}"


@pytest.mark.parametrize("order", [("pg1", "pg2"), ("pg2", "pg1")])
def test_first_start_by_agents_in_any_order(cluster, order):
    running = [serve(cluster, order[0])]
    wait_until(lambda: cluster.beacon(order[0]), f"{order[0]} to say what it does")
    running.append(serve(cluster, order[1]))
    wait_until(lambda: cluster.answers("pg1"), "pg1 to serve")
    cluster.wait_streaming()
    cluster.assert_healthy()
    for each in running:
        stop(each)
    cluster.assert_nothing_runs()


@pytest.mark.parametrize("order", [("pg1", "pg2"), ("pg2", "pg1")])
def test_cold_start_in_any_order(fresh_pair, order):
    fresh_pair.sql("CREATE TABLE t AS SELECT 1 AS x")
    fresh_pair.wait_same("SELECT x FROM t")
    fresh_pair.down()
    epoch = fresh_pair.leader()["epoch"]
    running = [serve(fresh_pair, order[0])]
    wait_until(lambda: fresh_pair.postmaster_pid(order[0]), f"the server of {order[0]}")
    running.append(serve(fresh_pair, order[1]))
    wait_until(lambda: fresh_pair.answers("pg1"), "pg1 to serve")
    fresh_pair.assert_healthy()
    assert fresh_pair.leader()["holder"] == "pg1" and fresh_pair.leader()["epoch"] == epoch
    for each in reversed(running):
        stop(each)


def test_a_replica_alone_never_becomes_primary(fresh_pair):
    fresh_pair.down()
    agent = serve(fresh_pair, "pg2")
    wait_until(lambda: fresh_pair.answers("pg2"), "the replica to answer read queries")
    assert fresh_pair.value("SELECT pg_is_in_recovery()", "pg2") is True
    assert fresh_pair.leader()["holder"] == "pg1"
    assert fresh_pair.status()["primary"] in (None, "pg1")
    assert fresh_pair.run("check").code == 2
    stop(agent)


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_foreground_agent_stops_cleanly(make_cluster, sig):
    cluster = make_cluster(nodes=1)
    agent = serve(cluster, "pg1")
    wait_until(lambda: cluster.answers("pg1"), "the server to answer")
    stop(agent, sig)
    assert control_state(cluster, "pg1") == SHUT_DOWN
    cluster.assert_nothing_runs()


def test_foreground_agent_is_the_guard_itself(make_cluster):
    """As PID 1 of a container there must be nothing between the signal and the guard."""
    cluster = make_cluster(nodes=1)
    agent = serve(cluster, "pg1")
    wait_until(lambda: cluster.answers("pg1"), "the server to answer")
    assert cluster.guard_pid("pg1") == agent.pid
    stop(agent)


def test_stop_during_the_first_start(make_cluster):
    cluster = make_cluster(nodes=1)
    agent = serve(cluster, "pg1")
    wait_until(lambda: list(cluster.path("data").glob("*.new")), "initdb to be under way",
               interval=0.003)
    stop(agent)
    cluster.assert_nothing_runs()
    cluster.up()
    cluster.assert_healthy()


def test_second_agent_of_a_node_is_refused(fresh_single):
    before = fresh_single.pids("pg1")
    result = fresh_single.run("agent", "pg1")
    assert result.code not in (0, None) and "pg1" in result.err, str(result)
    assert fresh_single.pids("pg1") == before


def test_up_takes_what_agents_already_run(cluster):
    agent = serve(cluster, "pg1")
    wait_until(lambda: cluster.guard_pid("pg1"), "the guard of pg1")
    cluster.up()
    assert cluster.guard_pid("pg1") == agent.pid
    cluster.assert_healthy()
    cluster.down()
    assert agent.wait(10).code == 0
    cluster.assert_nothing_runs()


def test_down_ends_foreground_agents_of_this_machine(make_cluster):
    cluster = make_cluster(nodes=1)
    agent = serve(cluster, "pg1")
    wait_until(lambda: cluster.answers("pg1"), "the server to answer")
    cluster.down()
    wait_gone(agent.pid, "the foreground agent", 1) if is_alive(agent.pid) else None
    cluster.assert_nothing_runs()


# -- time-outs ------------------------------------------------------------------------------------


def test_up_says_what_it_waited_for(fresh_pair):
    """A replica that cannot start: `up` names it, leaves the primary alone and ends in time."""
    stop_node(fresh_pair, "pg2")
    wal = fresh_pair.data("pg2") / "pg_wal"
    hidden = fresh_pair.base / "pg_wal"
    os.rename(wal, hidden)
    result = fresh_pair.run("up", "--timeout", "5")
    result.fails(1, ["pg2", "pg_wal"])
    assert result.seconds < 15
    assert fresh_pair.answers("pg1"), "the primary serves all the same"
    shutil.rmtree(wal, ignore_errors=True)
    os.rename(hidden, wal)
    fresh_pair.up()
    fresh_pair.assert_healthy()


def test_a_broken_replica_is_found_before_anything_starts(fresh_pair):
    fresh_pair.down()
    version = fresh_pair.data("pg2") / "PG_VERSION"
    hidden = fresh_pair.base / "PG_VERSION"
    os.rename(version, hidden)
    fresh_pair.run("up", "--timeout", "5").fails(1, "pg2")
    fresh_pair.assert_nothing_runs()
    os.rename(hidden, version)
    fresh_pair.up()
    fresh_pair.assert_healthy()


def test_stop_timeout_ends_servers_the_hard_way(fresh_single):
    """A backend that cannot be ended by a fast shutdown does not keep `down` from ending."""
    fresh_single.run("config", "set", "cluster.stop_timeout", "2s").ok()
    fresh_single.run("config", "reload").ok()
    conn = fresh_single.connect()
    fresh_single.sql("CREATE TABLE t AS SELECT 7 AS x")
    os.kill(conn.get_backend_pid(), signal.SIGSTOP)
    assert fresh_single.down().seconds < 20
    fresh_single.assert_nothing_runs()
    fresh_single.up()
    assert fresh_single.value("SELECT x FROM t") == 7


# -- refusals -------------------------------------------------------------------------------------


def test_closed_standard_streams(cluster):
    """As from cron: no terminal, no descriptors."""
    up = cluster.argv("up", "--timeout", "15")
    cluster.run(argv=["/bin/sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', *up]).ok()
    cluster.assert_healthy()
    assert read_if_there(cluster.path("run/pg1/guard.pid"))
    assert parent_of(cluster.guard_pid("pg1")) != os.getpid()
