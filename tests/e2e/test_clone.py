"""Making replicas: interrupted at any point, on a full disk, on strange directories."""

import os
import pwd
import shutil
import signal
import subprocess

import pytest

from utils import (IS_ROOT, SERVER_USER, all_pids, cmdline, comm, frozen, kill, snapshot, stop_node,
                   wait_gone, wait_until)


def lose_replica(cluster, node="pg2"):
    """The node is down and its data directory is elsewhere."""
    stop_node(cluster, node)
    away = cluster.base / f"{node}.away"
    shutil.rmtree(away, ignore_errors=True)
    os.rename(cluster.data(node), away)


def base_backups(cluster):
    return [p for p in all_pids() if comm(p) == "pg_basebackup" and str(cluster.dir) in cmdline(p)]


def freeze_base_backup(cluster):
    """Wait for the base backup to run and stop it in its tracks; its pids."""
    def found():
        pids = base_backups(cluster)
        for pid in pids:
            kill(pid, signal.SIGSTOP)
        return pids and cluster.path("data/pg2.new/base").exists() and base_backups(cluster) or (
            [kill(p, signal.SIGCONT) for p in pids] and None)

    return wait_until(found, "a base backup to freeze", interval=0.002)


def fill(cluster, megabytes=60):
    cluster.sql("CREATE TABLE IF NOT EXISTS ballast (x text)")
    cluster.sql("ALTER TABLE ballast ALTER x SET STORAGE EXTERNAL")
    cluster.sql("INSERT INTO ballast SELECT repeat(md5(g::text), 32)"
                f" FROM generate_series(1, {megabytes * 1000}) g")


def assert_cloned(cluster):
    cluster.assert_healthy()
    assert not cluster.path("data/pg2.new").exists()
    assert not [p for p in cluster.path("data").iterdir() if p.name.endswith(".pgduet")]
    slots = cluster.sql("SELECT slot_name, active FROM pg_replication_slots")
    assert slots == [("pg2", True)], "a slot of an interrupted backup is left"
    assert (cluster.data("pg2") / "standby.signal").exists()


# -- ordinary -------------------------------------------------------------------------------------


def test_first_replica_has_what_the_primary_had(fresh_pair):
    assert fresh_pair.value("SELECT system_identifier FROM pg_control_system()", "pg1") == \
        fresh_pair.value("SELECT system_identifier FROM pg_control_system()", "pg2")
    for path in ("data/pg1.seed", "data/pg1.new", "data/pg2.new"):
        wait_until(lambda: not fresh_pair.path(path).exists(), f"{path} to go")


def test_lost_replica_is_cloned_again(fresh_pair):
    fill(fresh_pair, 5)
    lose_replica(fresh_pair)
    fresh_pair.up()
    assert_cloned(fresh_pair)
    fresh_pair.wait_same("SELECT count(*) FROM ballast")


def test_the_clone_is_shown(fresh_pair):
    fill(fresh_pair)
    lose_replica(fresh_pair)
    up = fresh_pair.start("up")
    pids = freeze_base_backup(fresh_pair)
    try:
        wait_until(lambda: fresh_pair.node("pg2")["state"] == "cloning", "state 'cloning'")
        assert fresh_pair.run("check").code in (1, 2)
    finally:
        for pid in pids:
            kill(pid, signal.SIGCONT)
    up.wait().ok()
    assert_cloned(fresh_pair)


def test_the_primary_takes_writes_meanwhile(fresh_pair):
    fill(fresh_pair)
    lose_replica(fresh_pair)
    up = fresh_pair.start("up")
    pids = freeze_base_backup(fresh_pair)
    fresh_pair.sql("CREATE TABLE meanwhile AS SELECT generate_series(1, 1000) AS x")
    for pid in pids:
        kill(pid, signal.SIGCONT)
    up.wait().ok()
    assert fresh_pair.wait_same("SELECT count(*) FROM meanwhile") == [(1000,)]


def test_up_timeout_names_the_clone_and_the_next_up_finishes_it(fresh_pair):
    fill(fresh_pair)
    lose_replica(fresh_pair)
    up = fresh_pair.start("up", "--timeout", "4")
    pids = freeze_base_backup(fresh_pair)
    up.wait(30).fails(1, ["pg2", "hint: "])
    for pid in pids:
        kill(pid, signal.SIGCONT)
    fresh_pair.up()
    assert_cloned(fresh_pair)


def test_replica_of_a_stopped_primary_waits(fresh_pair):
    """Nothing to copy from: not an error, and it goes on when the primary comes."""
    fresh_pair.down()
    os.rename(fresh_pair.data("pg2"), fresh_pair.base / "pg2.away")
    agent = fresh_pair.start("agent", "pg2")
    wait_until(lambda: fresh_pair.beacon("pg2").get("agent_pid"), "the agent of pg2")
    assert agent.process.poll() is None
    fresh_pair.up()
    assert_cloned(fresh_pair)


# -- interrupted ----------------------------------------------------------------------------------

MOMENTS = {
    "begun": "data/pg2.new",
    "some files": "data/pg2.new/base/1",
    "nearly all": "data/pg2.new/global/pg_control",
    "finished": "data/pg2/PG_VERSION",
    "starting": "data/pg2/postmaster.pid",
}
VICTIMS = ("base backup", "agent", "guard", "guard and agent", "all of pg2", "primary's server",
           "everything")


def strike(cluster, victim):
    guard, agent = cluster.guard_pid("pg2"), cluster.agent_pid("pg2")
    if victim == "base backup":
        targets = base_backups(cluster)
    elif victim == "all of pg2":
        targets = [guard, agent, *base_backups(cluster), cluster.postmaster_pid("pg2")]
    elif victim == "everything":
        return cluster.kill_all()
    else:
        targets = {"agent": [agent], "guard": [guard], "guard and agent": [guard, agent],
                   "primary's server": [cluster.postmaster_pid("pg1")]}[victim]
    for pid in targets:
        if pid:
            kill(pid)


@pytest.mark.parametrize("victim", VICTIMS)
def test_killed_during_the_base_backup(fresh_pair, victim):
    """While the backup is stopped half-way, so that the moment is certain."""
    fill(fresh_pair, 20)
    lose_replica(fresh_pair)
    up = fresh_pair.start("up")
    pids = freeze_base_backup(fresh_pair)
    strike(fresh_pair, victim)
    for pid in pids:
        kill(pid, signal.SIGCONT)
    if victim in ("agent", "guard", "guard and agent"):
        for pid in pids:
            wait_gone(pid, "the base backup of the dead agent", 10)
    up.wait()
    fresh_pair.up()
    assert_cloned(fresh_pair)
    fresh_pair.wait_same("SELECT count(*) FROM ballast")


@pytest.mark.parametrize("victim", ["agent", "all of pg2", "everything"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment_of_a_base_backup(fresh_pair, moment, victim):
    lose_replica(fresh_pair)
    up = fresh_pair.start("up")
    wait_until(lambda: fresh_pair.path(MOMENTS[moment]).exists() or up.process.poll() is not None,
               f"the moment '{moment}'", interval=0.002)
    strike(fresh_pair, victim)
    up.wait()
    fresh_pair.up()
    assert_cloned(fresh_pair)


BOOTSTRAP_MOMENTS = ("data/pg1.seed.new", "data/pg1.seed", "data/pg1.new",
                     "data/pg1/PG_VERSION", "data/pg1/postmaster.pid", "data/pg2.new",
                     "data/pg2.new/base", "data/pg2/PG_VERSION")


@pytest.mark.parametrize("victims", [("pg1",), ("pg2",), ("pg1", "pg2")], ids="-".join)
@pytest.mark.parametrize("moment", BOOTSTRAP_MOMENTS)
def test_killed_at_any_moment_of_the_first_start(cluster, moment, victims):
    up = cluster.start("up")
    wait_until(lambda: cluster.path(moment).exists() or up.process.poll() is not None,
               f"{moment} to appear", interval=0.002)
    targets = [p for node in victims for p in cluster.pids(node)]
    for pid in targets:
        kill(pid)
    if len(victims) == 2:
        cluster.kill_all()
        up.end()
    else:
        up.wait()
    cluster.up()
    assert_cloned(cluster)
    assert len([h for h in cluster.history() if h["event"] == "bootstrap"]) <= 1
    assert cluster.leader()["epoch"] == 1


def test_orphaned_backup_never_touches_a_finished_directory(fresh_pair):
    """What outlives the agent, frozen, must not go on in the directory that the next one made."""
    fresh_pair.sql("ALTER SYSTEM SET wal_sender_timeout = '3s'")  # else its slot is taken for 60 s
    fresh_pair.sql("SELECT pg_reload_conf()")
    fill(fresh_pair, 20)
    lose_replica(fresh_pair)
    up = fresh_pair.start("up")
    pids = freeze_base_backup(fresh_pair)
    kill(fresh_pair.guard_pid("pg2"))
    up.wait()
    fresh_pair.up()
    inode = os.stat(fresh_pair.data("pg2")).st_ino
    for pid in pids:
        kill(pid, signal.SIGCONT)
        wait_gone(pid, "the orphaned base backup", 10)
    assert os.stat(fresh_pair.data("pg2")).st_ino == inode
    assert_cloned(fresh_pair)


# -- disk full ------------------------------------------------------------------------------------


def small_disk(cluster, size):
    """pg2's data directory on a file system of its own, of that size."""
    place = cluster.path("small")
    place.mkdir()
    owner = pwd.getpwnam(SERVER_USER)
    options = f"size={size},uid={owner.pw_uid},gid={owner.pw_gid},mode=0700"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)],
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot mount a small file system: {done.stderr.strip()}")
    cluster.mounts.append(place)
    cluster.edit("pgduet.conf",
                 lambda t: t.replace("[node pg2]\n", f"[node pg2]\ndata = {place}/pg2\n", 1))
    return place


def grow(place):
    subprocess.run(["mount", "-o", "remount,size=400m", str(place)], check=True)


def assert_no_room(cluster):
    wait_until(lambda: "No space left" in str(cluster.beacon("pg2").get("error")),
               "the full disk to be told in pg2's state")
    assert "No space left" in cluster.node_log("pg2")
    cluster.sql("CREATE TABLE IF NOT EXISTS goes_on (x int)")


needs_mount = pytest.mark.skipif(not IS_ROOT, reason="mounts a small file system, which takes root")


@needs_mount
def test_disk_full_at_the_first_start(cluster):
    place = small_disk(cluster, "12m")
    result = cluster.run("up", "--timeout", "8")
    result.fails(1, ["pg2", "[Nn]o space left"])
    assert_no_room(cluster)
    grow(place)
    wait_until(lambda: cluster.streams("pg2"), "the replica to be made by itself", 60)
    cluster.up()


@needs_mount
def test_disk_full_during_a_base_backup(cluster):
    place = small_disk(cluster, "400m")
    cluster.up()
    fill(cluster, 30)
    stop_node(cluster, "pg2")
    shutil.rmtree(place / "pg2")
    subprocess.run(["mount", "-o", "remount,size=40m", str(place)], check=True)
    cluster.run("up", "--timeout", "8").fails(1, ["pg2", "[Nn]o space left"])
    assert_no_room(cluster)
    grow(place)
    wait_until(lambda: cluster.streams("pg2"), "the replica to be made by itself", 60)
    cluster.up()


@needs_mount
def test_disk_full_of_a_running_replica(cluster):
    """PostgreSQL stops on it; with room again the replica catches up by itself, nothing cloned."""
    place = small_disk(cluster, "120m")
    cluster.up()
    inode = os.stat(place / "pg2").st_ino
    fill(cluster, 150)
    wait_until(lambda: not cluster.answers("pg2") or "No space left" in cluster.server_log("pg2"),
               "the replica to run out of space")
    grow(place)
    wait_until(lambda: cluster.streams("pg2"), "the replica to stream again", 60)
    wait_until(lambda: cluster.sql("SELECT count(*) FROM ballast", "pg2") == [(150000,)],
               "the replica to have everything", 60)
    assert os.stat(place / "pg2").st_ino == inode
    cluster.up()


# -- strange directories --------------------------------------------------------------------------


def put_thesis(cluster, place):
    place.mkdir()
    (place / "thesis.txt").write_text("mine")
    cluster.give_to_server_user(place, place / "thesis.txt")
    return snapshot(place)


def test_unknown_files_in_the_way(cluster):
    before = put_thesis(cluster, cluster.data("pg2"))
    cluster.run("up", "--timeout", "15").fails(1, ["pg2", "hint: "])
    assert snapshot(cluster.data("pg2")) == before
    cluster.assert_nothing_runs()


def test_unknown_files_in_the_way_of_a_lost_replica(fresh_pair):
    lose_replica(fresh_pair)
    before = put_thesis(fresh_pair, fresh_pair.data("pg2"))
    fresh_pair.run("up", "--timeout", "15").fails(1, ["pg2", "hint: "])
    agent = fresh_pair.start("agent", "pg2")
    wait_until(lambda: fresh_pair.beacon("pg2").get("state") == "failed", "pg2 to say 'failed'")
    assert snapshot(fresh_pair.data("pg2")) == before
    assert fresh_pair.answers("pg1"), "the other node serves"
    assert fresh_pair.node("pg2")["state"] == "failed"
    agent.signal(signal.SIGTERM)
    assert agent.wait(20).code == 0


def test_unfinished_directory_that_is_not_ours(cluster):
    place = cluster.path("data/pg2.new")
    before = put_thesis(cluster, place)
    cluster.run("up", "--timeout", "8").fails(1, [r"pg2\.new"])
    assert snapshot(place) == before


def test_data_of_another_cluster(make_cluster):
    stranger = make_cluster(nodes=1, up=True)
    stranger.down()
    pair = make_cluster(up=True)
    lose_replica(pair)
    shutil.copytree(stranger.data("pg1"), pair.data("pg2"))
    for root, dirs, files in os.walk(pair.data("pg2")):
        pair.give_to_server_user(root, *[os.path.join(root, f) for f in files])
    os.chmod(pair.data("pg2"), 0o700)
    before = snapshot(pair.data("pg2"))
    pair.run("up", "--timeout", "8").fails(1, "pg2")
    assert snapshot(pair.data("pg2")) == before
    assert pair.answers("pg1")


def test_an_old_primarys_data_is_not_overwritten(fresh_pair):
    """A copy of the primary put where the replica was may hold writes that nobody else has."""
    fresh_pair.down()
    shutil.rmtree(fresh_pair.data("pg2"))
    subprocess.run(["cp", "-a", fresh_pair.data("pg1"), fresh_pair.data("pg2")], check=True)
    control = fresh_pair.data("pg2").joinpath("global/pg_control").read_bytes()
    fresh_pair.run("up", "--timeout", "8").fails(1, "pg2")
    assert fresh_pair.data("pg2").joinpath("global/pg_control").read_bytes() == control
    assert fresh_pair.answers("pg1") and not fresh_pair.answers("pg2")


def test_lost_primary_data_is_not_created_anew(fresh_pair):
    """The leader's data directory is gone: an empty new cluster would be the worst answer."""
    fresh_pair.sql("CREATE TABLE precious AS SELECT 1 AS x")
    fresh_pair.wait_same("SELECT x FROM precious")
    fresh_pair.down()
    os.rename(fresh_pair.data("pg1"), fresh_pair.base / "pg1.away")
    fresh_pair.run("up", "--timeout", "5").fails(1, ["pg1", "data directory"])
    assert not fresh_pair.data("pg1").exists()
    assert fresh_pair.value("SELECT x FROM precious", "pg2") == 1, "the replica is not touched"
    os.rename(fresh_pair.base / "pg1.away", fresh_pair.data("pg1"))
    fresh_pair.up()
    fresh_pair.assert_healthy()


def test_lost_store_records_do_not_lead_to_a_new_cluster(fresh_pair):
    fresh_pair.down()
    for name in ("leader", "cluster"):
        os.rename(fresh_pair.path("store", name), fresh_pair.base / f"{name}.away")
    result = fresh_pair.run("up", "--timeout", "5")
    assert result.code in (1, 2) and "pgduet: " in result.err, str(result)
    for name in ("leader", "cluster"):
        shutil.rmtree(fresh_pair.path("store", name), ignore_errors=True)
        os.rename(fresh_pair.base / f"{name}.away", fresh_pair.path("store", name))
    fresh_pair.up()
    fresh_pair.assert_healthy()


def test_frozen_primary_during_the_clone(fresh_pair):
    """Nothing to hurry about: the clone goes on when the primary does."""
    lose_replica(fresh_pair)
    with frozen(fresh_pair.postmaster_pid("pg1")):
        up = fresh_pair.start("up")
        wait_until(lambda: fresh_pair.agent_pid("pg2"), "the agent of pg2")
    up.wait().ok()
    assert_cloned(fresh_pair)
