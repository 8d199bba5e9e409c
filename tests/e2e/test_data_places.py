"""Data directories that are links or mount points."""

import os
import pwd
import subprocess

import pytest

from utils import IS_ROOT, SERVER_USER, wait_gone

needs_mount = pytest.mark.skipif(not IS_ROOT, reason="mounts a file system, which takes root")


def link(cluster, node):
    """The node's data directory is a link to an empty directory elsewhere; that directory."""
    elsewhere = cluster.base / "elsewhere"
    target = elsewhere / node
    elsewhere.mkdir(exist_ok=True)
    target.mkdir(mode=0o700)
    cluster.give_to_server_user(elsewhere, target)
    cluster.data(node).symlink_to(target)
    return target


def test_links_to_empty_directories(cluster):
    targets = [link(cluster, node) for node in cluster.names]
    cluster.up()
    cluster.assert_healthy()
    for node, target in zip(cluster.names, targets):
        assert cluster.data(node).is_symlink(), "the link was replaced"
        assert (target / "PG_VERSION").exists()
        assert target.stat().st_mode & 0o777 == 0o700
    left = {p.name for p in (cluster.base / "elsewhere").iterdir()} | {
        p.name for p in cluster.path("data").iterdir()}
    assert left == set(cluster.names), "something half made is left"
    old = cluster.postmaster_pid("pg1")
    os.kill(old, 9)
    wait_gone(old)
    cluster.up()
    cluster.down()
    cluster.assert_nothing_runs()
    cluster.up()
    cluster.assert_healthy()


def test_a_replica_that_was_lost_behind_its_link(cluster):
    target = link(cluster, "pg2")
    cluster.up()
    cluster.down()
    os.rename(target, cluster.base / "elsewhere" / "away")
    target.mkdir(mode=0o700)
    cluster.give_to_server_user(target)
    cluster.up()
    assert cluster.data("pg2").is_symlink() and (target / "standby.signal").exists()
    cluster.assert_healthy()


@needs_mount
@pytest.mark.parametrize("node", ["pg1", "pg2"])
def test_a_mount_point_is_refused_before_anything_starts(cluster, node):
    """Directories are made beside their place and renamed, which a mount point prevents."""
    place = cluster.data(node)
    place.mkdir(mode=0o700)
    owner = pwd.getpwnam(SERVER_USER)
    options = f"size=200m,uid={owner.pw_uid},gid={owner.pw_gid},mode=0700"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)],
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot mount a file system: {done.stderr.strip()}")
    cluster.mounts.append(place)
    result = cluster.run("up", "--timeout", "20")
    result.fails(1, [f"{node}: .*{place} is a mount point", f"hint: .*{place}/"])
    cluster.assert_nothing_runs()
    assert [p.name for p in cluster.path("data").iterdir()] == [node]
    assert not list(place.iterdir()) and not cluster.leader()
    cluster.edit("pgduet.conf", lambda t: t.replace(
        f"[node {node}]\n", f"[node {node}]\ndata = {place}/data\n", 1))  # what the hint says
    cluster.up()
    assert (place / "data" / "PG_VERSION").exists()
    cluster.down()
