"""Who is whose parent, what the guard is, and what agents leave behind."""

import os
import re
import struct

import pytest

from utils import (children_of, cmdline, hold_true, open_files, parent_of, proc_stat, read_if_there,
                   wait_until)

PT_INTERP = 3


def program_headers(path):
    """Types of the ELF program headers."""
    with open(path, "rb") as f:
        head = f.read(64)
        offset, = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        f.seek(offset)
        table = f.read(size * count)
    return [struct.unpack_from("<I", table, i * size)[0] for i in range(count)]


def test_guard_is_parent_of_agent_and_postmaster(pair):
    for node in pair.names:
        guard, agent, postmaster = pair.pids(node)
        assert parent_of(agent) == guard and parent_of(postmaster) == guard
        assert sorted(children_of(guard)) == sorted([agent, postmaster])


def test_each_node_has_its_own(pair):
    pids = [p for node in pair.names for p in pair.pids(node)]
    assert len(set(pids)) == 6


def test_the_guard_is_static(pair):
    exe = os.path.realpath(f"/proc/{pair.guard_pid('pg1')}/exe")
    assert PT_INTERP not in program_headers(exe)
    assert ".so" not in read_if_there(f"/proc/{pair.guard_pid('pg1')}/maps")


def test_the_guard_is_not_tied_to_our_terminal(pair):
    for node in pair.names:
        for pid in pair.pids(node):
            session, terminal = proc_stat(pid)[3:5]
            assert terminal == "0"
            assert int(session) != os.getsid(0)


def test_started_servers_are_nobodys_children_here(pair):
    assert parent_of(pair.guard_pid("pg1")) != os.getpid()


def test_nothing_holds_the_callers_directory_or_output(pair):
    for node in pair.names:
        guard, agent, _ = pair.pids(node)
        for pid in (guard, agent):
            assert os.readlink(f"/proc/{pid}/cwd") == "/"
            targets = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in ("0", "1", "2")]
            assert not [t for t in targets if t.startswith("pipe:")], targets


def test_no_descriptor_leaks_into_the_server(pair):
    """The postmaster inherits the node's lock on descriptor 9 and nothing else of ours."""
    for node in pair.names:
        postmaster = pair.postmaster_pid(node)
        files = open_files(postmaster)
        assert files["9"] == str(pair.path(f"store/locks/{node}.postgres"))
        ours = [t for fd, t in files.items()
                if fd != "9" and t.startswith(str(pair.path("store")))]
        assert not ours


def test_beacon_tells_the_truth(pair):
    for node in pair.names:
        beacon = pair.beacon(node)
        pids = [beacon["guard_pid"], beacon["agent_pid"], beacon["postmaster_pid"]]
        assert pids == pair.pids(node)
        assert beacon["state"] == "running" and beacon["ready"] is True and beacon["error"] == ""
        assert beacon["role"] == {"pg1": "primary", "pg2": "replica"}[node]
        assert beacon["reason"]


def test_leader_record(pair):
    leader = pair.leader()
    assert (leader["epoch"], leader["holder"], leader["state"]) == (1, "pg1", "serving")
    assert leader["timeline"] == 1


def test_history_begins_with_the_bootstrap_and_gives_reasons(pair):
    history = pair.history()
    assert history[0]["event"] == "bootstrap" and history[0]["node"] == "pg1"
    assert all(h["reason"] and h["when"] for h in history)


def test_command_lines_are_modest(pair):
    for pid in pair.processes():
        assert not re.search(r"passw", cmdline(pid), re.I), cmdline(pid)


@pytest.mark.slow
def test_an_idle_cluster_rests(pair):
    """Not a measurement: only that nothing spins."""
    pids = [p for node in pair.names for p in pair.pids(node)[:2]]

    def ticks():
        return sum(int(proc_stat(p)[11]) + int(proc_stat(p)[12]) for p in pids)

    hold_true(lambda: True, "a moment to settle", 0.5)
    before = ticks()
    hold_true(lambda: True, "three seconds of rest", 3)
    assert ticks() - before <= 10, "guards and agents used more than 0.1 s in 3 s"


def test_store_revisions_never_change(fresh_pair):
    """Immutable revisions: what was once written under a number stays."""
    def revisions():
        return {str(p.relative_to(fresh_pair.path("store"))): p.read_text()
                for p in fresh_pair.path("store").rglob("*") if p.is_file() and p.name.isdigit()}

    before = revisions()
    fresh_pair.run("restart").ok()
    after = revisions()
    assert all(after.get(name, text) == text for name, text in before.items())
    assert len(after) > len(before)
    wait_until(lambda: fresh_pair.record("op")["phase"] == "done", "the operation to be done")
