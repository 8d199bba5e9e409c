"""`config reload` does not wait for a node that is being made."""

import signal

from test_clone import assert_cloned, fill, freeze_base_backup, lose_replica
from utils import kill, wait_until


def test_reload_while_a_replica_is_cloned(fresh_pair):
    """The clone goes on with what it began with, and the replica starts with what is new."""
    fill(fresh_pair)
    lose_replica(fresh_pair)
    up = fresh_pair.start("up")
    pids = freeze_base_backup(fresh_pair)
    try:
        fresh_pair.edit("pgduet.conf", lambda t: t.replace("[postgres]\n",
                                                           "[postgres]\nwork_mem = 13MB\n", 1))
        result = fresh_pair.run("config", "reload", timeout=30).ok()
        assert "pg1" in result.out + result.err
        assert result.seconds < 8, "the reload waited for the clone"
        wait_until(lambda: fresh_pair.show("work_mem", "pg1") == "13MB", "the setting on pg1")
        assert fresh_pair.run("config", "set", "maintenance_work_mem", "35MB", timeout=20).ok()
        wait_until(lambda: fresh_pair.show("maintenance_work_mem") == "35MB", "the other setting")
        assert not fresh_pair.data("pg2").exists(), "the clone was done: this proves nothing"
    finally:
        for pid in pids:
            kill(pid, signal.SIGCONT)
    up.wait().ok()
    assert_cloned(fresh_pair)
    assert fresh_pair.show("work_mem", "pg2") == "13MB"
    assert fresh_pair.show("maintenance_work_mem", "pg2") == "35MB"
