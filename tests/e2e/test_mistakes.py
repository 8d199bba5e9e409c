"""Mistakes that must neither hide a cluster's state nor keep it from being stopped."""

import os

from utils import kill, wait_until


def test_down_with_a_mistake_in_the_configuration(fresh_pair):
    fresh_pair.edit("pgduet.conf", lambda t: t + "nonsense\n")
    fresh_pair.run("status").fails(1, ["pgduet.conf:"])
    result = fresh_pair.run("down", timeout=60).ok()
    assert "pgduet.conf:" in result.err
    fresh_pair.assert_nothing_runs()
    fresh_pair.edit("pgduet.conf", lambda t: t.replace("nonsense\n", ""))
    fresh_pair.up()
    fresh_pair.assert_healthy()


def test_a_mistake_that_nobody_loaded_leaves_no_server_without_its_agent(fresh_pair):
    """A new agent goes on with the file accepted last, and says so until it is mended."""
    good = fresh_pair.conf.read_text()
    agent, server = fresh_pair.agent_pid("pg1"), fresh_pair.postmaster_pid("pg1")
    fresh_pair.write("pgduet.conf", good + "nonsense line\n")
    kill(agent)
    wait_until(lambda: fresh_pair.beacon("pg1").get("agent_pid") not in (None, agent) and
               fresh_pair.beacon("pg1").get("ready"), "a new agent that calls its server ready")
    assert fresh_pair.postmaster_pid("pg1") == server
    assert "pgduet.conf:" in fresh_pair.beacon("pg1")["error"]
    assert fresh_pair.node_log("pg1").count("settings accepted last") == 1
    kill(server)
    wait_until(lambda: fresh_pair.postmaster_pid("pg1") not in (None, server), "a new server")
    wait_until(lambda: fresh_pair.beacon("pg1").get("ready"), "the new server to be ready")
    assert "pgduet.conf:" in fresh_pair.beacon("pg1")["error"], "the mistake was forgotten"
    fresh_pair.write("pgduet.conf", good)
    assert "pgduet.conf:" in fresh_pair.node("pg1")["problem"]
    fresh_pair.run("config", "reload").ok()
    wait_until(lambda: fresh_pair.node("pg1")["problem"] is None, "the problem to go")
    fresh_pair.assert_healthy()


def test_a_start_by_hand_with_a_mistake_is_refused(fresh_pair):
    """What was accepted by an earlier run does not count for a person."""
    fresh_pair.down()
    fresh_pair.edit("pgduet.conf", lambda t: t + "nonsense line\n")
    fresh_pair.run("up").fails(1, "pgduet.conf:")
    fresh_pair.run("agent", "pg1").fails(1, "pgduet.conf:")
    fresh_pair.assert_nothing_runs()


def test_an_unfinished_directory_of_somebody_else_is_left_alone(fresh_pair):
    fresh_pair.down()
    foreign = fresh_pair.path("data/pg2.new")
    foreign.mkdir()
    (foreign / "precious").write_text("not pgduet's")
    fresh_pair.run("up").fails(1, ["pg2.new", "hint: "])
    assert (foreign / "precious").read_text() == "not pgduet's"
    (foreign / "precious").unlink()
    foreign.rmdir()
    fresh_pair.up()
    fresh_pair.assert_healthy()


def test_check_warns_of_a_lost_lock_file(fresh_pair):
    lock = fresh_pair.path("store/locks/pg2.guard")
    away = str(lock) + ".away"
    fresh_pair.run("check").ok()
    os.rename(lock, away)
    try:
        result = fresh_pair.run("check")
        assert result.code == 1 and "pg2.guard" in result.out, result
    finally:
        os.rename(away, lock)
    fresh_pair.run("check").ok()
