""".env without a password, or with a wrong one."""

import re

import psycopg2
import pytest

from utils import kill, wait_until

NAMES = ("POSTGRES_ADMIN_PASSWORD", "POSTGRES_REPLICATION_PASSWORD")
ABSENCES = {
    "missing": lambda name, text: re.sub(rf"^{name}=.*\n", "", text, flags=re.M),
    "empty": lambda name, text: re.sub(rf"^{name}=.*$", f"{name}=", text, flags=re.M),
    "empty in quotes": lambda name, text: re.sub(rf"^{name}=.*$", f"{name}=''", text, flags=re.M),
    "no file": None,
}


def remove(cluster, name, how):
    if how == "no file":
        cluster.path(".env").unlink()
        return
    before = cluster.path(".env").read_text()
    cluster.edit(".env", lambda text: ABSENCES[how](name, text))
    assert cluster.path(".env").read_text() != before


@pytest.mark.parametrize("command", [("agent", "pg1"), ("up", "--timeout", "10")],
                         ids=lambda c: c[0])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ABSENCES)
def test_nothing_is_made_without_a_password(cluster, command, name, how):
    env = cluster.path(".env").read_text()
    remove(cluster, name, how)
    expected = name if how != "no file" else NAMES[0]
    cluster.start(*command).wait(20).fails(1, [rf"\.env: .*{expected}", "hint: "])
    cluster.assert_nothing_runs()
    assert not list(cluster.path("data").iterdir()), "data were made without a password"
    assert not cluster.leader(), "the store has a leader that was never started"
    cluster.write(".env", env)


def test_the_first_start_after_it_was_set(cluster):
    env = cluster.path(".env").read_text()
    remove(cluster, NAMES[0], "missing")
    cluster.start("agent", "pg1").wait(20).fails(1, NAMES[0])
    cluster.write(".env", env)
    cluster.up()
    cluster.assert_healthy()


@pytest.mark.parametrize("name", NAMES)
def test_reload_without_a_password_is_refused_and_servers_go_on(fresh_pair, name):
    env = fresh_pair.path(".env").read_text()
    password = fresh_pair.admin_password
    pids = [fresh_pair.pids(node) for node in fresh_pair.names]
    remove(fresh_pair, name, "missing")
    fresh_pair.run("config", "reload").fails(1, [r"\.env", name])
    assert fresh_pair.value("SELECT 1", password=password) == 1
    fresh_pair.write(".env", env)
    fresh_pair.run("config", "reload").ok()
    assert [fresh_pair.pids(node) for node in fresh_pair.names] == pids
    fresh_pair.assert_healthy()


# -- a wrong one ----------------------------------------------------------------------------------


def errors(cluster):
    return [str(cluster.beacon(node).get("error")) for node in cluster.names]


@pytest.mark.parametrize("crash", [False, True], ids=["restart", "restart and crash"])
def test_a_wrong_password_is_mended_by_a_reload(fresh_pair, crash):
    """The agents know no role without an answer, and serve the reload all the same."""
    env = fresh_pair.path(".env").read_text()
    password = fresh_pair.admin_password
    remove(fresh_pair, NAMES[0], "missing")
    fresh_pair.edit(".env", lambda text: text + f"{NAMES[0]}=wrong\n")
    fresh_pair.run("restart", "--timeout", "5", timeout=30).fails(1)
    if crash:
        old = fresh_pair.postmaster_pid("pg1")
        kill(old)
        wait_until(lambda: fresh_pair.postmaster_pid("pg1") not in (None, old), "a new server")
    wait_until(lambda: all("password authentication failed" in e for e in errors(fresh_pair)),
               "both nodes to tell what is wrong")
    with pytest.raises(psycopg2.OperationalError):
        fresh_pair.sql("SELECT 1", password="wrong")
    assert fresh_pair.value("SELECT 1", password=password) == 1, "the server itself serves"
    pids = [fresh_pair.postmaster_pid(node) for node in fresh_pair.names]
    fresh_pair.write(".env", env)
    fresh_pair.run("config", "reload", timeout=40).ok()
    wait_until(lambda: not any("password" in e for e in errors(fresh_pair)), "the error to go")
    wait_until(lambda: all(fresh_pair.beacon(n).get("ready") for n in fresh_pair.names),
               "both nodes to be ready")
    assert [fresh_pair.postmaster_pid(node) for node in fresh_pair.names] == pids
    fresh_pair.assert_healthy()
    fresh_pair.run("restart").ok()
    fresh_pair.assert_healthy()
