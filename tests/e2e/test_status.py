"""`status` and `check`: what is there, told truthfully, whatever state it is in."""

import json
import os
import re
import signal

import pytest

from utils import frozen, wait_gone, wait_until

NODE_FIELDS = {"name": str, "role": str, "state": str, "host": str, "port": int, "timeline": int,
               "lsn": str, "lag_bytes": int, "lag_seconds": (int, float), "pending_restart": bool,
               "version": str}
ROLES = {"primary", "replica", "none"}
STATES = {"starting", "running", "stopped", "crashed", "cloning", "rewinding", "promoting",
          "stopping", "fenced", "failed"}


def by_name(status):
    return {n["name"]: n for n in status["nodes"]}


# -- a healthy pair -------------------------------------------------------------------------------


def test_json_contract(pair):
    status = pair.status()
    assert status["cluster"] == "main"
    assert status["epoch"] == 1 and status["timeline"] == 1
    assert status["paused"] is False and status["sync"] == "off"
    assert status["primary"] == "pg1"
    assert status["endpoints"]["write"] == f"127.0.0.1:{pair.first_port}"
    assert status["endpoints"]["read"] == f"127.0.0.1:{pair.first_port + 1}"
    for node in status["nodes"]:
        for field, kind in NODE_FIELDS.items():
            assert isinstance(node[field], kind), f"{field} of {node}"
        assert node["role"] in ROLES and node["state"] in STATES
        assert re.fullmatch(r"[0-9A-F]+/[0-9A-F]+", node["lsn"])
        assert set(node) >= {"replication", "sync_state"}


def test_json_values(pair):
    nodes = by_name(pair.status())
    assert (nodes["pg1"]["role"], nodes["pg1"]["state"]) == ("primary", "running")
    assert (nodes["pg2"]["role"], nodes["pg2"]["state"]) == ("replica", "running")
    assert nodes["pg1"]["replication"] is None and nodes["pg1"]["sync_state"] is None
    assert nodes["pg2"]["replication"] == "streaming" and nodes["pg2"]["sync_state"] == "async"
    assert nodes["pg1"]["lag_bytes"] == 0
    assert nodes["pg1"]["port"] == pair.first_port
    assert nodes["pg1"]["version"] == pair.value("SHOW server_version").split()[0]


def test_table(pair):
    out = pair.run("status").ok().out
    lines = {line.split()[0]: line for line in out.splitlines() if line.split()}
    assert "primary" in lines["pg1"] and "running" in lines["pg1"], out
    assert "replica" in lines["pg2"] and "streaming" in lines["pg2"], out
    assert "\x1b" not in out, "no colours into a pipe"


def test_status_into_a_closed_pipe(pair):
    pair.run(argv=["/bin/sh", "-c", '"$0" "$@" | true', *pair.argv("status")]).ok()


def test_check_is_ok(pair):
    result = pair.run("check").ok()
    assert re.match(r"PGDUET OK - .+\|.*=", result.out), str(result)
    assert len(result.out.splitlines()) == 1
    _, perfdata = result.out.split("|", 1)
    for item in perfdata.split():
        assert re.fullmatch(r"'?[\w.-]+'?=-?[\d.]+(B|s|ms|%|c)?(;[\d.:~@-]*){0,4}", item), item


def test_status_writes_nothing(pair):
    before = pair.leader(), sorted(os.listdir(pair.path("store")))
    pair.status()
    assert (pair.leader(), sorted(os.listdir(pair.path("store")))) == before


def test_lag_is_seen_and_limited(pair):
    pair.sql("CREATE TABLE IF NOT EXISTS bulk (x text)")
    pair.sql("SELECT pg_wal_replay_pause()", "pg2")
    try:
        pair.sql("INSERT INTO bulk SELECT repeat('x', 1000) FROM generate_series(1, 4000)")
        wait_until(lambda: pair.node("pg2")["lag_bytes"] > 2_000_000, "the lag to show")
        result = pair.run("check", "--max-lag", "1MB")
        assert result.code in (1, 2) and re.match(r"PGDUET (WARNING|CRITICAL) - .*pg2", result.out)
        pair.run("check", "--max-lag", "1GB").ok()
    finally:
        pair.sql("SELECT pg_wal_replay_resume()", "pg2")
    wait_until(lambda: pair.node("pg2")["lag_bytes"] == 0, "the lag to go")
    pair.run("check", "--max-lag", "1MB").ok()


def test_status_does_not_wait_for_a_frozen_server(pair):
    """The replica's postmaster answers nobody: the others' state is told all the same."""
    with frozen(pair.postmaster_pid("pg2")):
        result = pair.run("status", "--json").ok()
        assert result.seconds < 10
        assert by_name(result.json)["pg1"]["state"] == "running"
    pair.wait_streaming()


def test_check_with_a_frozen_primary(pair):
    pair.sql("SELECT 1")
    with frozen(pair.postmaster_pid("pg1")):
        result = pair.run("check")
        assert result.code in (1, 2), str(result)
        assert result.seconds < 15
    pair.run("check").ok()


# -- other states ---------------------------------------------------------------------------------


def test_before_the_first_up(cluster):
    status = cluster.status()
    assert status["primary"] is None
    assert {n["state"] for n in status["nodes"]} == {"stopped"}
    assert cluster.run("status").ok().out.count("stopped") == 2
    result = cluster.run("check")
    assert result.code == 2 and result.out.startswith("PGDUET CRITICAL - "), str(result)


def test_after_down(fresh_pair):
    fresh_pair.down()
    nodes = by_name(fresh_pair.status())
    assert {n["state"] for n in nodes.values()} == {"stopped"}
    assert fresh_pair.run("check").code == 2


def assert_stopped(cluster):
    node = cluster.node("pg1")
    assert node["state"] == "stopped" and node["problem"] is None, node


def test_after_down_without_an_agent(fresh_single):
    """Its last beacon says 'running', and nobody is left to say that it was stopped."""
    agent = fresh_single.agent_pid("pg1")
    with frozen(agent):
        down = fresh_single.start("down")
        wait_until(lambda: fresh_single.record("members/pg1")["wish"] == "stop", "down to begin")
        os.kill(agent, signal.SIGKILL)
        down.wait().ok()
    assert_stopped(fresh_single)


def test_after_down_with_a_mistake_that_keeps_the_agent_from_starting(fresh_single):
    env = fresh_single.path(".env").read_text()
    fresh_single.write(".env", env + "nonsense line\n")
    os.kill(fresh_single.agent_pid("pg1"), signal.SIGKILL)
    wait_until(lambda: ".env:" in fresh_single.node_log("pg1"), "the agent to fail")
    fresh_single.down()
    fresh_single.write(".env", env)
    assert_stopped(fresh_single)
    fresh_single.up()
    fresh_single.assert_healthy()


def test_check_of_no_directory_is_unknown(make_cluster):
    result = make_cluster(init=False).run("check")
    assert result.code == 3 and (result.out + result.err).strip(), str(result)


def test_check_of_broken_settings_is_unknown(cluster):
    cluster.edit("pgduet.conf", lambda t: t + "\nnonsense\n")
    assert cluster.run("check").code == 3


def test_check_with_a_stopped_replica(fresh_pair):
    agent = fresh_pair.guard_pid("pg2")
    os.kill(agent, signal.SIGTERM)
    wait_gone(agent, "the guard of pg2")
    assert fresh_pair.run("check").code in (1, 2)
    node = fresh_pair.node("pg2")
    assert node["state"] == "stopped" and node["replication"] is None


def test_a_dead_node_is_not_shown_as_running(fresh_pair):
    """Everything of a node killed, its last beacon still says 'running'."""
    pids = [fresh_pair.guard_pid(n) for n in ("pg2", "pg1")]
    fresh_pair.kill_all()
    for pid in pids:
        wait_gone(pid)
    nodes = by_name(fresh_pair.status())
    assert nodes["pg1"]["state"] != "running" and nodes["pg2"]["state"] != "running", nodes
    assert fresh_pair.run("check").code == 2


def test_pending_restart_is_shown(make_cluster):
    cluster = make_cluster(up=True)
    cluster.sql("ALTER SYSTEM SET max_locks_per_transaction = 99")
    cluster.sql("SELECT pg_reload_conf()")
    wait_until(lambda: cluster.node("pg1")["pending_restart"], "the pending restart to show")
    assert not cluster.node("pg2")["pending_restart"]
    assert "restart" in cluster.run("status").ok().out


def test_watch_shows_again_and_ends_with_ctrl_c(pair):
    watch = pair.start("status", "--watch")
    wait_until(lambda: watch.out.count("pg2") >= 2, "a second table")
    watch.signal(signal.SIGINT)
    assert watch.wait(5).code in (0, 130, -signal.SIGINT)


@pytest.mark.parametrize("key", ["leader", "cluster"])
def test_damaged_store(fresh_single, key):
    """A torn record is an error that names it, not a wrong answer and not a crash."""
    record = sorted(fresh_single.path("store", key).iterdir())[-1]
    good = record.read_text()
    record.write_text(good[: len(good) // 2])
    try:
        result = fresh_single.run("status")
        result.fails(1, key)
        assert fresh_single.answers("pg1"), "the server goes on"
    finally:
        record.write_text(good)
    wait_until(lambda: json.loads(record.read_text()) and fresh_single.run("status").code == 0,
               "status to work again")
