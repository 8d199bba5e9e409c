"""`pgduet init --docker`: the folder postgres-replica/ of the sources, for any number of nodes."""

import fnmatch
import os
import pwd
import re
import shutil
import subprocess

import pytest

from conftest import REPOSITORY
from utils import IS_ROOT, SERVER_USER, clean_environment, mode, snapshot

TEMPLATE = REPOSITORY / "postgres-replica"
PASSWORDS = ("POSTGRES_ADMIN_PASSWORD", "POSTGRES_REPLICATION_PASSWORD", "POSTGRES_PASSWORD")
SIZES = (1, 2, 3, 8)


@pytest.fixture
def place(make_cluster):
    """Runs `init --docker` for a folder that does not exist yet: place(...), place.dir."""
    cluster = make_cluster(init=False)

    def run(*args, dir=cluster.dir, **options):
        argv = [str(cluster.pgduet), "init", "--docker", str(dir), *map(str, args)]
        return cluster.run(argv=argv, **options)

    run.dir, run.base, run.cluster = cluster.dir, cluster.base, cluster
    return run


def names(nodes):
    return ["postgres-master", "postgres-replica",
            *(f"postgres-replica-{i}" for i in range(2, nodes))][:nodes]


def files_below(folder):
    """Files with text and mode, without those that .gitignore keeps out of the sources."""
    ignored = (folder / ".gitignore").read_text().split()
    found = {}
    for root, dirs, here in os.walk(folder):
        dirs[:] = [d for d in dirs if f"{d}/" not in ignored]
        for name in here:
            path = os.path.join(root, name)
            short = os.path.relpath(path, folder)
            if not any(fnmatch.fnmatch(short, pattern) for pattern in ignored):
                with open(path, "rb") as f:
                    found[short] = (f.read(), oct(mode(path)))
    return found


def settings(path):
    return dict(re.findall(r"^(\w+)=(.*)$", path.read_text(), re.M))


def services(text):
    """The text of each service of a docker-compose.yml by its name, and what stands around them."""
    head, rest = text.split("\nservices:\n", 1)
    body, tail = re.split(r"^(?=networks:)", rest, maxsplit=1, flags=re.M)
    parts = re.split(r"^  ([\w-]+):\n", body, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2])), head, tail


def lines(pattern, text):
    return re.findall(pattern, text, re.M)


# -- the same folder ------------------------------------------------------------------------------


def test_two_nodes_are_the_folder_of_the_sources(place):
    """Also when a file is added to the folder: then it must be added to meson.build."""
    place().ok()
    assert files_below(place.dir) == files_below(TEMPLATE)
    assert (place.dir / "logs").is_dir() and (place.dir / "certs").is_dir()


@pytest.mark.parametrize("nodes", SIZES)
def test_every_number_of_nodes_has_the_same_files(place, nodes):
    place("--nodes", nodes).ok()
    differ = {"docker-compose.yml", ".env.example"}
    written, template = files_below(place.dir), files_below(TEMPLATE)
    assert set(written) == set(template)
    assert {n for n in written if written[n] != template[n]} == (set() if nodes == 2 else differ)


# -- docker-compose.yml ---------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", SIZES)
def test_services(place, nodes):
    place("--nodes", nodes).ok()
    text = (place.dir / "docker-compose.yml").read_text()
    found, head, tail = services(text)
    assert list(found) == ["init", *names(nodes)]
    assert lines(r"^    (postgres-[\w-]+)=", head) == names(nodes)
    logs = lines(r"^    postgres-[\w-]+=(logs/\S+)$", head)
    assert len(set(logs)) == nodes, logs
    assert lines(r"^  ([\w-]+):$", tail.split("\nvolumes:\n")[1]) == [
        *(f"{name}-data" for name in names(nodes)), "store"]
    for i, name in enumerate(names(nodes)):
        service = found[name]
        assert lines(r"container_name: (\S+)", service) == [name]
        assert lines(r"PGDUET_NODE: (\S+)", service) == [name]
        assert lines(r"^      - (\S+):/bitnami/postgresql$", service) == [f"{name}-data"]
        assert lines(r"^      - (\S+-data:/siblings/\S+)$", service) == [
            f"{other}-data:/siblings/{other}:ro" for other in names(nodes) if other != name]
        assert lines(r"^      - 127\.0\.0\.1:\$\{\w+:-(\d+)\}:5432$", service) == [str(5432 + i)]
    variables = lines(r"\$\{(\w+_PORT):-", text)
    assert len(set(variables)) == nodes, variables
    assert set(variables) <= set(settings(place.dir / ".env.example"))


def test_names_of_further_replicas(place):
    place("--nodes", 3).ok()
    text = (place.dir / "docker-compose.yml").read_text()
    assert "    postgres-replica-2=logs/replica-2/postgresql-slave\n" in text
    assert "${POSTGRES_REPLICA_2_PORT:-5434}:5432\n" in text
    assert "primary and its 2 replicas" in text.splitlines()[0]


def has_compose():
    return shutil.which("docker") and subprocess.run(
        ["docker", "compose", "version"], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("nodes", SIZES)
def test_compose_accepts_it(place, nodes):
    if not has_compose():
        pytest.skip("no Docker Compose on this machine")
    place("--nodes", nodes, "--memory", "1.5GB", "--port", place.cluster.first_port).ok()
    result = subprocess.run(["docker", "compose", "config", "-q"], cwd=place.dir, text=True,
                            capture_output=True, env=clean_environment(), check=False)
    assert result.returncode == 0 and not result.stderr, result.stderr


# -- .env -----------------------------------------------------------------------------------------


def test_passwords_are_private_strong_and_new(place):
    seen = set()
    for name in ("one", "two"):
        result = place(dir=place.base / name).ok()
        env = place.base / name / ".env"
        assert mode(env) == 0o600
        values = [settings(env)[name] for name in PASSWORDS]
        assert all(re.fullmatch(r"[A-Za-z0-9]{32,}", value) for value in values)
        assert not [v for v in values if v in result.out + result.err], "shown"
        assert str(env) in result.out, "where they are must be told"
        seen.update(values)
    assert len(seen) == 2 * len(PASSWORDS)


def test_env_has_what_the_example_has(place):
    place().ok()
    env, example = settings(place.dir / ".env"), settings(place.dir / ".env.example")
    # copies of the folder must not share their volumes
    assert re.fullmatch(r"postgres-replica-[0-9a-f]{8}", env.pop("COMPOSE_PROJECT_NAME"))
    for untouched in (env, example):
        for name in PASSWORDS:
            assert untouched.pop(name) or untouched is example
        untouched.pop("POSTGRES_CPUS")  # no more than this machine has
    assert env == example


def test_ports(place):
    place("--nodes", 3, "--port", 6000).ok()
    env = settings(place.dir / ".env")
    assert [env[f"POSTGRES_{which}_PORT"] for which in ("MASTER", "REPLICA", "REPLICA_2")] == [
        "6000", "6001", "6002"]


@pytest.mark.parametrize("memory,limit", [
    ("small", "2G"), ("medium", "4G"), ("large", "16G"), ("xlarge", "32G"), ("1.5GB", "1536M"),
    ("3G", "3G"), ("auto", "2G"),
])
def test_memory_is_what_the_container_may_use(place, memory, limit):
    place("--memory", memory).ok()
    env = settings(place.dir / ".env")
    assert (env["PGDUET_MEMORY"], env["POSTGRES_MEMORY_LIMIT"]) == (memory, limit)


# -- where it is written --------------------------------------------------------------------------


def test_output_tells_the_next_steps(place):
    out = place().ok().out
    assert f"cd {place.dir} && docker compose up -d" in out
    assert "docker build -t pgduet:17" in out, "the image does not come from this folder"


def test_in_the_sources_compose_builds_the_image(place):
    (place.base / "docker").mkdir()
    (place.base / "docker" / "Dockerfile").write_text("FROM scratch\n")
    assert "docker build" not in place().ok().out


def test_the_folder_is_its_makers(place):
    """No server runs from it by itself, so root keeps it."""
    place(dir=place.base / "a" / "folder").ok()
    for root, _, files in os.walk(place.base / "a"):
        for name in [".", *files]:
            assert os.lstat(os.path.join(root, name)).st_uid == os.geteuid()


@pytest.mark.skipif(not IS_ROOT, reason="becomes another user, which takes root")
def test_another_users_folder_is_that_users(place):
    owner = pwd.getpwnam(SERVER_USER)
    os.chown(place.base, owner.pw_uid, owner.pw_gid)
    place(user=SERVER_USER).ok()
    assert os.stat(place.dir / ".env").st_uid == owner.pw_uid


def test_the_working_directory_if_it_is_empty(place):
    place.dir.mkdir()
    place(dir=".", cwd=place.dir).ok()
    assert (place.dir / "docker-compose.yml").exists()


def test_second_time_it_refuses_and_touches_nothing(place):
    place().ok()
    before = snapshot(place.dir)
    place().fails(1, ["not empty", "hint: ", "docker compose up"])
    assert snapshot(place.dir) == before


def test_directory_with_something_else_is_refused(place):
    place.dir.mkdir()
    (place.dir / "thesis.txt").write_text("mine")
    before = snapshot(place.dir)
    place().fails(1, "not empty")
    assert snapshot(place.dir) == before


@pytest.mark.parametrize("args", [
    ("--nodes", "0"), ("--nodes", "9"), ("--nodes", "two"), ("--memory", "lots"),
    ("--memory", "1MB"), ("--memory", ""), ("--port", "0"), ("--port", "65535"),
    ("--name", "other"), ("--name", "main"), ("--repair-locks",), ("--docker=yes",),
])
def test_nonsense_is_refused_and_nothing_made(place, args):
    place(*args).fails((1, 2))
    assert not place.dir.exists()


@pytest.mark.skipif(not IS_ROOT, reason="mounts a file system, which takes root")
def test_on_a_full_disk_nothing_is_left(place):
    place.dir.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(place.dir)],
                          capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("this machine does not permit mounts")
    place.cluster.mounts.append(place.dir)
    place().fails(1, "No space left")
    assert not list(place.dir.iterdir()), "what it began is taken back"
