"""`pgduet health`: one question about one node, for container engines and load balancers."""

import json
import os
import re
import time

import pytest

from test_clone import lose_replica
from utils import frozen, kill, stop_node, wait_gone, wait_until

QUESTIONS = ("alive", "ready", "primary", "replica")


def assert_answer(result, code, *patterns):
    """The exit code and exactly one line, on standard output."""
    assert result.code == code and not result.err, result
    assert re.fullmatch(r"[\w-]+: [^\n]+\n", result.out), result
    for pattern in patterns:
        assert re.search(pattern, result.out), f"output lacks {pattern!r}:\n{result}"
    return result


def health(cluster, question, node, code, *patterns, **options):
    return assert_answer(cluster.run("health", question, node, **options), code, *patterns)


def wait_health(cluster, question, node, code, *patterns):
    return wait_until(lambda: health(cluster, question, node, code, *patterns),
                      f"{node}'s answer to '{question}' to be {code}")


# -- a healthy pair -------------------------------------------------------------------------------


@pytest.mark.parametrize("question,node,code,pattern", [
    ("alive", "pg1", 0, "pg1: alive, running as primary"),
    ("alive", "pg2", 0, "pg2: alive, running as replica"),
    ("ready", "pg1", 0, "pg1: ready as primary"),
    ("ready", "pg2", 0, "pg2: ready as replica"),
    ("primary", "pg1", 0, "pg1: ready as primary"),
    ("primary", "pg2", 1, "pg2: not a primary, but ready as replica"),
    ("replica", "pg2", 0, "pg2: ready as replica"),
    ("replica", "pg1", 1, "pg1: not a replica, but ready as primary"),
])
def test_answers_about_a_pair(pair, question, node, code, pattern):
    health(pair, question, node, code, rf"^{pattern}$")


def test_answers_hold_no_secret(pair):
    for question in QUESTIONS:
        out = pair.run("health", question, "pg2").out
        assert not [s for s in pair.secrets().values() if s in out]


def test_the_node_of_the_environment(pair):
    own = {"PGDUET_NODE": "pg2"}
    assert_answer(pair.run("health", "replica", env=own), 0, "^pg2: ")
    assert_answer(pair.run("health", "primary", "pg1", env=own), 0, "^pg1: ")
    pair.run("health", "alive", env={"PGDUET_NODE": "pg9"}).fails(2, ["pg9", "PGDUET_NODE"])


def test_without_a_name_there_must_be_one_node(pair, single):
    pair.run("health", "alive").fails(2, ["2 nodes", "alive pg1"])
    pair.run("health", "alive", env={"PGDUET_NODE": ""}).fails(2, "2 nodes")
    assert_answer(single.run("health", "primary"), 0, "^pg1: ")


def test_the_node_of_this_machine_by_the_configuration(cluster):
    cluster.edit("pgduet.conf", lambda t: t.replace("[cluster]", "[cluster]\nthis_node = pg2", 1))
    assert_answer(cluster.run("health", "alive"), 1, "^pg2: not alive, stopped")


@pytest.mark.parametrize("words", [
    (), ("alive", "pg1", "pg2"), ("healthy", "pg1"), ("pg1",), ("alive", "pg9"), ("alive", ""),
    ("alive", "--force"),
])
def test_wrong_questions(pair, words):
    result = pair.run("health", *words).fails(2)
    assert not result.out


def test_no_deployment(pair):
    nowhere = [str(pair.pgduet), "-C", str(pair.base), "health", "alive"]
    assert not pair.run(argv=nowhere).fails(1, "pgduet.conf").out


# -- nodes that do not run ------------------------------------------------------------------------


def test_never_started(cluster):
    for question in QUESTIONS:
        health(cluster, question, "pg1", 1, "not alive, stopped")


def test_the_other_node_is_stopped(fresh_pair):
    """What is said of one node does not hang on the others."""
    stop_node(fresh_pair, "pg1")
    health(fresh_pair, "alive", "pg1", 1, "not alive, stopped")
    health(fresh_pair, "ready", "pg1", 1, "not alive, stopped")
    health(fresh_pair, "replica", "pg2", 0)


def test_guard_and_agent_are_killed(fresh_single):
    guard, agent = fresh_single.guard_pid("pg1"), fresh_single.agent_pid("pg1")
    kill(guard)
    kill(agent)
    wait_gone(guard)
    health(fresh_single, "alive", "pg1", 1, "not alive, its guard is gone")
    health(fresh_single, "primary", "pg1", 1, "not alive, its guard is gone")


def test_data_of_somebody_else(cluster):
    """Nothing that time could mend: not alive, and the line tells what a person has to know."""
    cluster.data("pg1").mkdir()
    (cluster.data("pg1") / "precious").write_text("not pgduet's")
    cluster.give_to_server_user(cluster.data("pg1"), cluster.data("pg1") / "precious")
    cluster.start("agent", "pg1")
    wait_health(cluster, "alive", "pg1", 1, "not alive, failed: .*left alone.*not a PostgreSQL")


# -- nodes on their way ---------------------------------------------------------------------------


def test_waiting_for_the_primary(cluster):
    cluster.start("agent", "pg2")
    wait_health(cluster, "alive", "pg2", 0, "alive, starting: waiting for the (first|cluster)")
    health(cluster, "ready", "pg2", 1, "not ready, starting: waiting")
    health(cluster, "alive", "pg1", 1, "not alive, stopped")


def test_cloning(fresh_pair):
    lose_replica(fresh_pair)
    with frozen(fresh_pair.postmaster_pid("pg1")):
        up = fresh_pair.start("up")
        wait_health(fresh_pair, "alive", "pg2", 0, "alive, cloning: ")
        health(fresh_pair, "replica", "pg2", 1, "not ready, cloning: ")
    up.wait().ok()
    health(fresh_pair, "replica", "pg2", 0)


# -- nodes in trouble -----------------------------------------------------------------------------


def test_a_frozen_server_is_alive_but_not_ready(fresh_single):
    with frozen(fresh_single.postmaster_pid("pg1")):
        health(fresh_single, "alive", "pg1", 0)
        result = health(fresh_single, "ready", "pg1", 1, "not ready, its server does not answer: ")
        assert result.seconds < 6, "a load balancer waits no longer"
    wait_health(fresh_single, "ready", "pg1", 0)


def test_a_silent_agent(fresh_single):
    """With its guard frozen too, or that would end it."""
    beacon = fresh_single.path("store/beacons/pg1")
    with frozen(fresh_single.guard_pid("pg1"), fresh_single.agent_pid("pg1")):
        health(fresh_single, "alive", "pg1", 0)
        os.utime(beacon, (time.time() - 15,) * 2)
        health(fresh_single, "alive", "pg1", 0)
        os.utime(beacon, (time.time() - 25,) * 2)
        health(fresh_single, "alive", "pg1", 1, "not alive, its agent has been silent for 2[5-9] s")
        health(fresh_single, "ready", "pg1", 1, "not alive, its agent has been silent")
    wait_health(fresh_single, "ready", "pg1", 0)


def test_what_an_earlier_agent_said_does_not_count(make_cluster):
    """In a container every guard is process 1: the pid alone does not tell them apart."""
    cluster = make_cluster(nodes=1)
    cluster.start("agent", "pg1")
    guard = wait_until(lambda: cluster.guard_pid("pg1"), "the guard")
    agent = wait_until(lambda: cluster.agent_pid("pg1"), "the agent")
    said = wait_until(lambda: cluster.beacon("pg1"), "the beacon")
    with frozen(guard, agent):
        said |= {"state": "failed", "guard_start": said["guard_start"] - 1}
        cluster.write("store/beacons/pg1", json.dumps(said))
        health(cluster, "alive", "pg1", 0, "alive, starting: ")
        said |= {"guard_start": said["guard_start"] + 1}
        cluster.write("store/beacons/pg1", json.dumps(said))
        health(cluster, "alive", "pg1", 1, "not alive, failed: ")
    wait_health(cluster, "primary", "pg1", 0)


def test_a_replica_that_was_promoted_by_hand_is_not_ready(fresh_pair):
    with frozen(fresh_pair.guard_pid("pg2"), fresh_pair.agent_pid("pg2")):
        fresh_pair.sql("SELECT pg_promote()", "pg2")
        for question in ("ready", "primary", "replica"):
            health(fresh_pair, question, "pg2", 1, "not ready, it takes writes, but pg1 leads")
        health(fresh_pair, "primary", "pg1", 0)


def test_a_server_goes_on_without_the_leaders_record(fresh_single):
    away = fresh_single.path("store/leader.away")
    os.rename(fresh_single.path("store/leader"), away)
    health(fresh_single, "primary", "pg1", 0)
