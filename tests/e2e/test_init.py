"""`pgduet init`: what it writes, and that it makes nothing when it refuses."""

import os
import pwd
import re
import stat

import pytest

from utils import IS_ROOT, SERVER_USER, mode, snapshot


def init(cluster, *args, **options):
    return cluster.run(argv=[str(cluster.pgduet), "init", *map(str, args)], **options)


@pytest.fixture
def empty(make_cluster):
    return make_cluster(init=False)


def test_files(cluster):
    for name in ("pgduet.conf", ".env", ".gitignore", "config/primary.conf", "config/replica.conf",
                 "config/pg_hba.conf", "store/locks/pg1.guard", "store/locks/pg1.postgres",
                 "store/locks/pg2.guard", "store/locks/pg2.postgres"):
        assert cluster.path(name).is_file(), name
    for name in ("certs", "logs", "data", "run", "store"):
        assert cluster.path(name).is_dir(), name
    assert not list(cluster.path("data").iterdir()), "init makes no data"


def test_secrets_are_private_and_strong(cluster):
    assert mode(cluster.path(".env")) == 0o600
    secrets = cluster.secrets()
    assert set(secrets) >= {"POSTGRES_ADMIN_PASSWORD", "POSTGRES_REPLICATION_PASSWORD"}
    for name, value in secrets.items():
        assert len(value) >= 32, name
    assert len(set(secrets.values())) == len(secrets)


def test_secrets_differ_between_clusters(make_cluster):
    one, two = make_cluster().secrets(), make_cluster().secrets()
    assert not set(one.values()) & set(two.values())


def test_gitignore_keeps_secrets_and_data_out(cluster):
    ignored = cluster.path(".gitignore").read_text().split()
    for name in (".env", "data/", "logs/", "run/", "certs/*.key", "certs/*.pem", "certs/*.crt"):
        assert name in ignored


def test_output_tells_the_next_step_and_no_secret(make_cluster):
    cluster = make_cluster(init=False)
    result = cluster.init()
    assert re.search(r"\bup\b", result.out + result.err)
    for secret in cluster.secrets().values():
        assert secret not in result.out + result.err


def test_nodes_and_ports(make_cluster):
    cluster = make_cluster(nodes=8)
    ports = {n["name"]: n["port"] for n in cluster.run("status", "--json").ok().json["nodes"]}
    assert ports == {f"pg{i + 1}": cluster.first_port + i for i in range(8)}


def test_defaults_are_two_nodes_on_5432_and_5433(empty):
    init(empty, empty.dir).ok()
    nodes = empty.run("status", "--json").ok().json["nodes"]
    assert [(n["name"], n["port"]) for n in nodes] == [("pg1", 5432), ("pg2", 5433)]


def test_without_an_argument_it_uses_the_working_directory(empty):
    empty.dir.mkdir()
    if IS_ROOT:
        os.chown(empty.dir, pwd.getpwnam("postgres").pw_uid, -1)
    init(empty, cwd=empty.dir).ok()
    assert empty.conf.exists()


def test_an_empty_directory_is_fine(empty):
    empty.dir.mkdir()
    init(empty, empty.dir).ok()


def test_parents_are_made(empty):
    init(empty, empty.base / "a" / "b" / "c").ok()
    assert (empty.base / "a" / "b" / "c" / "pgduet.conf").exists()


def test_second_init_refuses_and_touches_nothing(cluster):
    before = snapshot(cluster.dir)
    init(cluster, cluster.dir).fails(1, ["exists|already|not empty", "hint: "])
    assert snapshot(cluster.dir) == before


def test_directory_with_something_else_is_refused(empty):
    empty.dir.mkdir()
    (empty.dir / "thesis.txt").write_text("mine")
    before = snapshot(empty.dir)
    init(empty, empty.dir).fails(1, "exists|not empty")
    assert snapshot(empty.dir) == before


def test_file_in_the_way(empty):
    empty.dir.write_text("mine")
    init(empty, empty.dir).fails(1, str(empty.dir))
    assert empty.dir.read_text() == "mine"


@pytest.mark.parametrize("args", [
    ("--memory", "lots"), ("--memory", "12 bananas"), ("--memory", "-1GB"), ("--memory", "0"),
    ("--memory", "1MB"), ("--memory", "99999TB"), ("--memory", ""), ("--memory", "2GBB"),
    ("--nodes", "0"), ("--nodes", "9"), ("--nodes", "two"), ("--nodes", "-1"), ("--nodes", "2x"),
    ("--port", "0"), ("--port", "70000"), ("--port", "http"), ("--port", "65535"),
    ("--port", "-5432"), ("--color", "blue"), ("one", "two"),
])
def test_nonsense_is_refused_and_nothing_made(empty, args):
    init(empty, empty.dir, *args).fails((1, 2))
    assert not empty.dir.exists()


@pytest.mark.parametrize("memory", ["small", "medium", "large", "xlarge", "1.5GB", "2G", "auto"])
def test_memory_is_accepted(empty, memory):
    init(empty, empty.dir, "--memory", memory).ok()
    assert empty.run("config", "show", "postgres.memory").ok().out.strip() == memory


def test_not_writable(empty):
    locked = empty.base / "locked"
    locked.mkdir(mode=0o555)
    user = "nobody" if IS_ROOT else None
    init(empty, locked / "cluster", user=user).fails(1, ["ermission denied", str(locked)])
    assert not list(locked.iterdir())


@pytest.mark.skipif(not IS_ROOT, reason="gives the directory to another user, which takes root")
def test_as_root_the_directory_belongs_to_the_servers_user(cluster):
    owner = pwd.getpwnam(SERVER_USER).pw_uid
    for root, dirs, files in os.walk(cluster.dir):
        for name in [".", *dirs, *files]:
            assert os.lstat(os.path.join(root, name)).st_uid == owner, os.path.join(root, name)


@pytest.mark.skipif(not IS_ROOT, reason="becomes another user, which takes root")
def test_as_a_normal_user_the_directory_is_that_users(empty):
    owner = pwd.getpwnam(SERVER_USER)
    os.chown(empty.base, owner.pw_uid, owner.pw_gid)
    init(empty, empty.dir, user=SERVER_USER).ok()
    assert os.stat(empty.dir).st_uid == owner.pw_uid


@pytest.mark.skipif(not IS_ROOT, reason="is about what root may enter and others may not")
def test_as_root_where_the_servers_user_cannot_enter(empty):
    private = empty.base / "private"
    private.mkdir(mode=0o700)
    init(empty, private / "cluster").fails(1, [SERVER_USER, str(private), "hint: "])
    assert not list(private.iterdir()), "nothing half made"


def test_nobody_else_may_read_the_data(cluster):
    assert not stat.S_IMODE(os.stat(cluster.path("data")).st_mode) & 0o022
    assert not stat.S_IMODE(os.stat(cluster.path("store")).st_mode) & 0o022


def test_every_setting_is_explained_in_the_file(cluster):
    text = cluster.conf.read_text()
    for section in ("[cluster]", "[postgres]", "[node pg1]", "[node pg2]"):
        assert section in text
    for key in ("database", "memory", "max_connections", "listen", "stop_timeout"):
        assert re.search(rf"^#.*\n(#?\s*){key}\s*=", text, re.M), f"{key} is not explained"


@pytest.mark.parametrize("memory,expected", [
    ("small", ("512MB", "1536MB", "4MB")), ("medium", ("1GB", "3GB", "8MB")),
    ("large", ("4GB", "12GB", "16MB")), ("xlarge", ("8GB", "24GB", "32MB")),
])
def test_presets_of_the_original_readme(make_cluster, memory, expected):
    """`config show` tells the values that servers of this size would get."""
    cluster = make_cluster(memory=memory)
    names = ("shared_buffers", "effective_cache_size", "work_mem")
    shown = tuple(cluster.run("config", "show", f"postgres.{n}").ok().out.strip() for n in names)
    assert shown == expected
