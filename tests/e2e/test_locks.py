"""Lock files, stale pid files, servers started by hand, taken ports, missing programs."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from utils import (IS_ROOT, SERVER_USER, PortBlock, bindir, clean_environment, cmdline,
                   die_with_parent, hold_true, is_alive, kill, run_as, server_tool, stop_node,
                   wait_gone, wait_until)

BUSY = "import sys, signal; print('ready', flush=True); signal.pause()"


@pytest.fixture
def bystander():
    """A live process of the servers' user that has nothing to do with PostgreSQL."""
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, cwd="/",
                               preexec_fn=die_with_parent, **run_as(SERVER_USER))
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


# -- lock files -----------------------------------------------------------------------------------

DAMAGES = ["deleted", "replaced", "emptied", "rewritten"]


def repair_locks(cluster):
    return cluster.run(argv=[str(cluster.pgduet), "init", str(cluster.dir), "--repair-locks"])


def damage(path, how):
    text = path.read_text()
    info = path.stat()
    if how == "deleted":
        path.unlink()
    elif how == "replaced":  # the same words in another file: only the inode tells
        path.with_name("new").write_text(text)
        os.chown(path.with_name("new"), info.st_uid, info.st_gid)
        os.rename(path.with_name("new"), path)
    elif how == "emptied":
        path.write_text("")
    elif how == "rewritten":
        path.write_text("0" * 32 + "\n")


def test_damaged_while_stopped(fresh_single):
    fresh_single.down()
    for lock in ("pg1.guard", "pg1.postgres"):
        for how in DAMAGES:
            damage(fresh_single.path("store/locks", lock), how)
            result = fresh_single.run("up", "--timeout", "6")
            result.fails(1, [lock.replace(".", r"\."), "hint: .*--repair-locks"])
            assert fresh_single.postmaster_pid("pg1") is None, f"started with a {how} {lock}"
            fresh_single.assert_nothing_runs()
            repair_locks(fresh_single).ok()
    fresh_single.up()
    fresh_single.assert_healthy()


def test_damaged_lock_of_one_node_does_not_keep_the_other_from_stopping(fresh_pair):
    stop_node(fresh_pair, "pg2")
    fresh_pair.path("store/locks/pg2.guard").unlink()
    fresh_pair.run("up", "--timeout", "6").fails(1, r"pg2\.guard")
    assert fresh_pair.answers("pg1")
    fresh_pair.run("down")
    fresh_pair.assert_nothing_runs()
    repair_locks(fresh_pair).ok()
    fresh_pair.up()
    fresh_pair.assert_healthy()


@pytest.mark.parametrize("which", ["guard", "postgres"])
def test_damaged_while_running(fresh_single, which):
    """Whoever locks the new file must not get a second server beside the first."""
    lock = fresh_single.path(f"store/locks/pg1.{which}")
    for how in DAMAGES:
        pids = fresh_single.pids("pg1")
        damage(lock, how)
        assert fresh_single.run("up", "--timeout", "6").code in (0, 1)
        assert fresh_single.start("agent", "pg1").wait(20).code != 0
        assert fresh_single.pids("pg1") == pids
        fresh_single.sql("SELECT 1")
        others = [p for p in fresh_single.processes()
                  if p != pids[2] and is_postmaster(fresh_single, p)]
        assert not others
        # It can be stopped all the same: how else would anybody repair it?
        fresh_single.run("down")
        fresh_single.assert_nothing_runs()
        repair_locks(fresh_single).ok()
        fresh_single.up()
    fresh_single.assert_healthy()


def is_postmaster(cluster, pid):
    return "postgres" in cmdline(pid).split(" ")[0] and str(cluster.data("pg1")) in cmdline(pid)


def test_postgres_lock_deleted_while_running_and_the_server_dies(fresh_pair):
    """It cannot be started again without its lock: refused with the reason, not started bare."""
    old = fresh_pair.postmaster_pid("pg1")
    fresh_pair.path("store/locks/pg1.postgres").unlink()
    kill(old)
    wait_gone(old)
    wait_until(lambda: "lock" in str(fresh_pair.beacon("pg1").get("error")),
               "the reason to be told")
    assert fresh_pair.postmaster_pid("pg1") is None
    fresh_pair.run("down")
    fresh_pair.assert_nothing_runs()
    repair_locks(fresh_pair).ok()
    fresh_pair.up()
    fresh_pair.assert_healthy()


def test_repair_is_refused_while_something_runs(fresh_pair):
    fresh_pair.path("store/locks/pg1.guard").unlink()
    repair_locks(fresh_pair).fails(1, "hint: .*(stop|down)")
    assert not fresh_pair.path("store/locks/pg1.guard").exists()


def test_repair_is_refused_while_orphans_run(fresh_single):
    """The guard is dead, one frozen backend still holds the server's lock."""
    backend = fresh_single.connect().get_backend_pid()
    postmaster = fresh_single.postmaster_pid("pg1")
    os.kill(backend, signal.SIGSTOP)
    os.kill(postmaster, signal.SIGSTOP)
    kill(fresh_single.guard_pid("pg1"))
    repair_locks(fresh_single).fails(1)
    assert is_alive(backend)
    kill(postmaster)
    kill(backend)


def test_repair_of_whole_locks_changes_nothing(fresh_single):
    fresh_single.down()
    locks = fresh_single.path("store/locks")
    before = {p.name: (p.stat().st_ino, p.read_text()) for p in locks.iterdir()}
    repair_locks(fresh_single).ok()
    assert {p.name: (p.stat().st_ino, p.read_text()) for p in locks.iterdir()} == before
    fresh_single.up()


def test_archive_command_does_not_hold_the_lock(fresh_single):
    """A helper that outlives the server must not keep the node's lock."""
    fresh_single.edit("config/primary.conf", lambda t: t + textwrap.dedent("""
        archive_mode = on
        archive_command = 'setsid sleep 300 >/dev/null 2>&1 & true'
        """))
    fresh_single.run("restart").ok()
    fresh_single.sql("SELECT pg_switch_wal()")
    fresh_single.sql("CREATE TABLE t AS SELECT 1 AS x")
    fresh_single.sql("SELECT pg_switch_wal()")
    wait_until(lambda: fresh_single.value("SELECT archived_count FROM pg_stat_archiver") > 0,
               "a file to be archived")
    fresh_single.run("restart", "--timeout", "30").ok()
    fresh_single.down()
    fresh_single.up()
    assert fresh_single.value("SELECT x FROM t") == 1


# -- stale pid files ------------------------------------------------------------------------------


def write_pidfile(cluster, node, pid):
    data = cluster.data(node)
    lines = [pid, data, 1700000000, cluster.port(node), "/tmp", "127.0.0.1", "  5432001    32769",
             "ready   "]
    path = data / "postmaster.pid"
    path.write_text("".join(f"{line}\n" for line in lines))
    os.chmod(path, 0o600)
    cluster.give_to_server_user(path)
    return path


@pytest.mark.parametrize("node", ["pg1", "pg2"])
def test_stale_pid_file_whose_pid_lives_again(fresh_pair, bystander, node):
    fresh_pair.down()
    write_pidfile(fresh_pair, node, bystander.pid)
    fresh_pair.up()
    assert bystander.poll() is None, "the innocent process was killed"
    fresh_pair.assert_healthy()


@pytest.mark.parametrize("text", ["", "99999999\n", "nonsense\n", "1\n", "-1\n", "0\n"])
def test_stale_pid_files_of_all_kinds(fresh_single, text):
    fresh_single.down()
    path = write_pidfile(fresh_single, "pg1", 1)
    path.write_text(text)
    fresh_single.up()
    fresh_single.assert_healthy()


def test_stale_socket_lock_whose_pid_lives_again(fresh_single, bystander):
    directory = fresh_single.show("unix_socket_directories")
    if not directory:
        pytest.skip("the servers have no socket directory here")
    fresh_single.kill_all()
    lock = Path(directory) / f".s.PGSQL.{fresh_single.first_port}.lock"
    lock.write_text(f"{bystander.pid}\n{fresh_single.data('pg1')}\n1700000000\n"
                    f"{fresh_single.first_port}\n{directory}\n")
    lock.chmod(0o600)
    fresh_single.give_to_server_user(lock)
    write_pidfile(fresh_single, "pg1", bystander.pid)
    fresh_single.up("--timeout", "10")
    assert bystander.poll() is None
    fresh_single.assert_healthy()


def test_stale_guard_pid_file(fresh_single, bystander):
    guard = fresh_single.guard_pid("pg1")
    fresh_single.kill_all()
    wait_gone(guard)
    path = fresh_single.path("run/pg1/guard.pid")
    path.write_text(f"{bystander.pid} 12345\n")
    fresh_single.up()
    assert bystander.poll() is None
    fresh_single.assert_healthy()
    assert fresh_single.guard_pid("pg1")


def test_down_with_a_stale_guard_pid_file_kills_nobody(fresh_single, bystander):
    fresh_single.down()
    path = fresh_single.path("run/pg1/guard.pid")
    path.write_text(f"{bystander.pid} 12345\n")
    fresh_single.give_to_server_user(path)
    fresh_single.down()
    assert bystander.poll() is None


# -- a server started by hand ---------------------------------------------------------------------


@pytest.fixture
def by_hand(fresh_pair):
    """pgduet is down; somebody runs PostgreSQL on pg1's data directory on another port."""
    fresh_pair.down()
    block = PortBlock()
    sockets = fresh_pair.base / "sockets"
    sockets.mkdir()
    fresh_pair.give_to_server_user(sockets)
    argv = [str(bindir(fresh_pair) / "postgres"), "-D", str(fresh_pair.data("pg1")), "-p",
            str(block.first), "-k", str(sockets), "-c", "logging_collector=off"]
    log = open(fresh_pair.base / "by_hand.log", "wb")
    process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/",
                               env=clean_environment(), preexec_fn=die_with_parent,
                               **run_as(SERVER_USER))
    socket_file = sockets / f".s.PGSQL.{block.first}"
    wait_until(lambda: socket_file.exists() and "ready" in (
        fresh_pair.data("pg1") / "postmaster.pid").read_text(), "the server by hand to be ready")
    yield process
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        process.wait(20)
    log.close()
    block.release()


def test_server_started_by_hand_is_left_alone(fresh_pair, by_hand):
    result = fresh_pair.run("up", "--timeout", "8")
    result.fails(1, ["pg1", rf"\b{by_hand.pid}\b"])
    assert by_hand.poll() is None, "it was killed"
    assert (fresh_pair.data("pg1") / "postmaster.pid").read_text().startswith(f"{by_hand.pid}\n")
    by_hand.send_signal(signal.SIGINT)
    by_hand.wait(20)
    fresh_pair.up()
    fresh_pair.assert_healthy()


def test_server_by_hand_whose_pid_file_was_deleted(fresh_pair, by_hand):
    """PostgreSQL itself ends then within a minute; until it does nobody may start beside it."""
    (fresh_pair.data("pg1") / "postmaster.pid").unlink()
    fresh_pair.run("up", "--timeout", "5").fails(1, ["pg1", rf"\b{by_hand.pid}\b"])
    assert by_hand.poll() is None


# -- ports ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("node", ["pg1", "pg2"])
def test_taken_port(cluster, node):
    argv = [sys.executable, "-c", textwrap.dedent(f"""
        import signal, socket
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", {cluster.port(node)}))
        s.listen()
        print("ready", flush=True)
        signal.pause()
        """)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, preexec_fn=die_with_parent,
                          **run_as(SERVER_USER)) as holder:
        try:
            assert holder.stdout.readline()
            result = cluster.run("up", "--timeout", "10")
            result.fails(1, [str(cluster.port(node)), rf"\b{holder.pid}\b", "python", "hint: "])
            cluster.assert_nothing_runs()
            assert not list(cluster.path("data").iterdir()), "nothing half made"
        finally:
            holder.kill()
    cluster.up()
    cluster.assert_healthy()


def test_port_taken_while_the_server_is_down(fresh_single):
    """Between a crash and the restart somebody takes the port: told, and mended by itself."""
    old = fresh_single.postmaster_pid("pg1")
    guard, agent = fresh_single.guard_pid("pg1"), fresh_single.agent_pid("pg1")
    os.kill(agent, signal.SIGSTOP)
    kill(old)
    wait_gone(old)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        wait_until(lambda: taken.bind(("127.0.0.1", fresh_single.first_port)) is None, "the port")
        taken.listen()
        os.kill(agent, signal.SIGCONT)
        wait_until(lambda: "port" in str(fresh_single.beacon("pg1").get("error")).lower()
                   or "address" in str(fresh_single.beacon("pg1").get("error")).lower(),
                   "the reason to be told")
    wait_until(lambda: fresh_single.answers("pg1"), "the server to start by itself")
    assert fresh_single.guard_pid("pg1") == guard


# -- PostgreSQL's programs ------------------------------------------------------------------------

PROGRAMS = ("postgres", "initdb", "pg_basebackup", "pg_controldata", "pg_ctl", "psql", "pg_rewind",
            "pg_checksums")


def fake_programs(cluster, version):
    """A directory of programs that say they are PostgreSQL `version`."""
    place = cluster.base / "fake"
    place.mkdir()
    place.chmod(0o755)
    for name in PROGRAMS:
        (place / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        (place / name).chmod(0o755)
    return place


def set_bindir(cluster, place):
    cluster.edit("pgduet.conf",
                 lambda t: t.replace("[postgres]\n", f"[postgres]\nbindir = {place}\n", 1))


@pytest.mark.parametrize("version", ["9.6.24", "14.11", "19.1"])
def test_postgresql_too_old_or_too_new(cluster, version):
    set_bindir(cluster, fake_programs(cluster, version))
    cluster.run("up").fails(1, [version.split(".")[0], "hint: "])
    cluster.assert_nothing_runs()
    assert not list(cluster.path("data").iterdir())


def test_postgresql_missing(cluster):
    set_bindir(cluster, "/nonexistent/bin")
    cluster.run("up").fails(1, ["/nonexistent/bin", "hint: "])
    cluster.assert_nothing_runs()


@pytest.mark.parametrize("missing", ["initdb", "pg_basebackup", "pg_controldata"])
def test_postgresql_incomplete(cluster, missing):
    place = fake_programs(cluster, "17.2")
    (place / missing).unlink()
    set_bindir(cluster, place)
    cluster.run("up").fails(1, [missing, "hint: "])


def test_programs_that_cannot_be_executed(cluster):
    place = fake_programs(cluster, "17.2")
    (place / "postgres").chmod(0o644)
    set_bindir(cluster, place)
    cluster.run("up").fails(1, "postgres")


def test_programs_of_another_major_version_than_the_data(fresh_pair):
    """The newest installed would start and refuse; here it is refused before anything starts."""
    major = int((fresh_pair.data("pg1") / "PG_VERSION").read_text())
    other = 17 if major != 17 else 16
    fresh_pair.down()
    set_bindir(fresh_pair, fake_programs(fresh_pair, f"{other}.2"))
    fresh_pair.run("up", "--timeout", "8").fails(1, [str(major), str(other), "hint: "])
    fresh_pair.assert_nothing_runs()
    fresh_pair.edit("pgduet.conf", lambda t: t.replace(f"bindir = {fresh_pair.base}/fake\n", ""))
    fresh_pair.up()
    fresh_pair.assert_healthy()


def test_data_of_another_major_version(fresh_single):
    fresh_single.down()
    version = fresh_single.data("pg1") / "PG_VERSION"
    good = version.read_text()
    version.write_text("14\n")
    fresh_single.run("up", "--timeout", "8").fails(1, ["pg1", "14"])
    version.write_text(good)
    fresh_single.up()


def test_guard_program_missing(make_cluster):
    cluster = make_cluster(nodes=1)
    lonely = cluster.base / "bin"
    lonely.mkdir()
    shutil.copy(cluster.pgduet, lonely / "pgduet")
    result = cluster.run(argv=[str(lonely / "pgduet"), "-C", str(cluster.dir), "up"])
    result.fails(1, "pgduet-guard")
    cluster.assert_nothing_runs()


@pytest.mark.skipif(not IS_ROOT, reason="takes the directory away from its user, which takes root")
def test_program_that_the_servers_user_cannot_reach(make_cluster):
    cluster = make_cluster(nodes=1)
    private = cluster.base / "private"
    private.mkdir(mode=0o700)
    for name in ("pgduet", "pgduet-guard"):
        shutil.copy(cluster.pgduet.with_name(name), private / name)
    result = cluster.run(argv=[str(private / "pgduet"), "-C", str(cluster.dir), "up"])
    result.fails(1, [str(private), "hint: "])
    cluster.assert_nothing_runs()


# -- damage that PostgreSQL itself finds -----------------------------------------------------------


def test_damaged_control_file(fresh_single):
    fresh_single.down()
    control = fresh_single.data("pg1") / "global/pg_control"
    good = control.read_bytes()
    control.write_bytes(b"\0" * len(good))
    fresh_single.run("up", "--timeout", "6").fails(1, ["pg1", "pg_control|control file"])
    control.write_bytes(good)
    fresh_single.up()
    fresh_single.assert_healthy()


def test_a_server_that_cannot_start_says_why(fresh_single):
    """The server's last FATAL line is in the error of `up`, `status` stays usable."""
    fresh_single.down()
    wal = fresh_single.data("pg1") / "pg_wal"
    os.rename(wal, fresh_single.base / "pg_wal")
    fresh_single.run("up", "--timeout", "6").fails(1, ["pg1", "pg_wal"])
    assert fresh_single.node("pg1")["state"] in ("failed", "crashed", "starting")
    shutil.rmtree(wal, ignore_errors=True)
    os.rename(fresh_single.base / "pg_wal", wal)
    fresh_single.up()
    hold_true(lambda: fresh_single.answers("pg1"), "the server stays up", 0.3)
    assert server_tool(fresh_single, "pg_controldata", fresh_single.data("pg1")).returncode == 0
