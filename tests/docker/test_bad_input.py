"""What people get wrong: one clear message in `docker compose logs`, and nothing damaged."""

import os
import re
import socket

import pytest

from utils import DATA, IMAGE, MASTER, NODES, docker, is_running, wait_exit, wait_ready, wait_until

GOOD = {"POSTGRES_PASSWORD": "a-good-password-for-tests"}
HINT = r"openssl rand -base64 32"


def one_message(text, *patterns):
    """Exactly one complaint, with all of the patterns in it."""
    lines = {re.sub(r"^.*?(?=pgduet: )", "", line) for line in text.splitlines() if "; hint: " in line}
    assert len(lines) == 1, text
    for pattern in patterns:
        assert re.search(pattern, lines.copy().pop()), text


# -- passwords ------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings,patterns", [
    ({"POSTGRES_ADMIN_PASSWORD": ""}, ["POSTGRES_ADMIN_PASSWORD is not set", HINT]),
    ({"POSTGRES_REPLICATION_PASSWORD": ""}, ["POSTGRES_REPLICATION_PASSWORD is not set", HINT]),
    ({"POSTGRES_PASSWORD": ""}, ["POSTGRES_PASSWORD is not set", HINT]),
    ({"POSTGRES_ADMIN_PASSWORD": "change_me_please"}, ["POSTGRES_ADMIN_PASSWORD is a placeholder", HINT]),
    ({"POSTGRES_PASSWORD": "<password>"}, ["POSTGRES_PASSWORD is a placeholder", HINT]),
    ({"POSTGRES_REPLICATION_PASSWORD": "postgres"}, ["among the first passwords", HINT]),
])
def test_no_good_password(make_deployment, settings, patterns):
    d = make_deployment(settings=settings)
    d.compose("up", "-d").fails('service "init" didn\'t complete successfully')
    one_message(d.logs("init"), *patterns)
    assert not any(is_running(d.container(node)) for node in NODES)
    for value in filter(None, settings.values()):
        assert value not in d.logs() or value == "postgres", "what was given as a password"
    # with good ones, the same folder starts
    d.write_env()
    d.up().wait_streams()


def test_no_env_file(make_deployment):
    d = make_deployment(env_file=False)
    d.env["POSTGRES_CPUS"] = "0"
    d.compose("up", "-d").fails("didn't complete successfully")
    one_message(d.logs("init"), "POSTGRES_ADMIN_PASSWORD is not set", HINT)


# -- secrets in files -----------------------------------------------------------------------------


def with_secret(d, mode, content="a-good-password-for-tests\n"):
    file = d.dir / "admin-password"
    file.write_text(content)
    file.chmod(mode)
    mount = {"volumes": [f"{file}:/secret:ro"]}
    services = {name: mount for name in ("init", *NODES)}
    (d.dir / "docker-compose.override.yml").write_text(repr({"services": services}).replace("'", '"'))
    d.write_env(POSTGRES_ADMIN_PASSWORD="", POSTGRES_ADMIN_PASSWORD_FILE="/secret")
    return file


def test_unreadable_secret(deployment):
    file = with_secret(deployment, 0o600)
    deployment.compose("up", "-d").fails("didn't complete successfully")
    one_message(deployment.logs("init"), "POSTGRES_ADMIN_PASSWORD_FILE", "/secret", "chown 1001")
    file.chmod(0o644)
    deployment.up().wait_streams()
    assert deployment.exec(MASTER, "env").out.count("a-good-password") == 0


def test_missing_and_empty_secret(deployment):
    with_secret(deployment, 0o644, "")
    deployment.compose("up", "-d").fails("didn't complete successfully")
    deployment.logs("init")
    assert "'/secret' is empty" in deployment.logs("init")
    deployment.write_env(POSTGRES_ADMIN_PASSWORD="", POSTGRES_ADMIN_PASSWORD_FILE="/nowhere")
    deployment.compose("up", "-d").fails("didn't complete successfully")
    one_message(deployment.compose("logs", "--no-color", "--tail", "1", "init").text, "/nowhere", "mount the file")


def test_variable_and_its_file(deployment):
    with_secret(deployment, 0o644)
    deployment.write_env(POSTGRES_ADMIN_PASSWORD_FILE="/secret")
    deployment.compose("up", "-d").fails("didn't complete successfully")
    assert "both POSTGRES_ADMIN_PASSWORD and POSTGRES_ADMIN_PASSWORD_FILE are set" in deployment.logs("init")


# -- volumes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage,pattern", [
    ("chown 999:999 /v", r"/bitnami/postgresql cannot be used .*belongs to 999:999"),
    ("chown 1001:0 /v; mkdir -m 700 /v/data; chown 999:999 /v/data", r"postgresql/data cannot be used .*999:999"),
    ("chown 1001:0 /v; chmod 0500 /v", r"mode 0500"),
])
def test_wrong_owner_or_mode_of_a_volume(sandbox, damage, pattern):
    # an empty volume would get owner and mode from the image
    sandbox.in_volume(f"touch /v/here; {damage}").ok()
    container = sandbox.start(env=GOOD)
    assert wait_exit(container) == 1
    one_message(docker("logs", container).text, pattern, "chown")
    # the hint, as it stands there, mends it
    hint = re.search(r"docker run (--rm --user 0 --entrypoint chown) -v VOLUME:/v IMAGE (-R 1001:0 /v)",
                     docker("logs", container).text)
    docker("run", *hint[1].split(), "-v", f"{sandbox.volume()}:/v", IMAGE, *hint[2].split()).ok()
    if "chmod" in damage:
        sandbox.in_volume("chmod 0770 /v").ok()
    sandbox.remove(container)
    wait_ready(sandbox.start(env=GOOD))


def test_volume_of_another_major_version(sandbox):
    wait_ready(sandbox.start(env=GOOD))
    sandbox.remove(sandbox.containers[0])
    sandbox.in_volume("echo 16 >/v/data/PG_VERSION; ls -lR --time-style=full-iso /v/data | sha256sum >/v/sum").ok()
    container = sandbox.start(env=GOOD)
    assert wait_exit(container) == 1
    one_message(docker("logs", container).text, "holds data of PostgreSQL 16, and this image has 17", "pg_upgrade")
    sandbox.in_volume("ls -lR --time-style=full-iso /v/data | sha256sum | cmp - /v/sum").ok()
    sandbox.in_volume("echo 17 >/v/data/PG_VERSION").ok()
    sandbox.remove(container)
    wait_ready(sandbox.start(env=GOOD))


def test_volume_with_something_else(sandbox):
    sandbox.in_volume("mkdir /v/data; echo mine >/v/data/thesis.txt; chown -R 1001:0 /v").ok()
    container = sandbox.start(env=GOOD)
    assert wait_exit(container) == 1
    one_message(docker("logs", container).text, "is not empty and holds no PostgreSQL data", "left alone")
    assert sandbox.in_volume("ls -A /v/data; cat /v/data/thesis.txt").ok().out == "thesis.txt\nmine\n"


def test_data_of_another_image(sandbox):
    """A data directory without pgduet's store beside it is never initialised, nor taken over."""
    wait_ready(sandbox.start(env=GOOD))
    sandbox.remove(sandbox.containers[0])
    sandbox.in_volume("rm -r /v/pgduet /v/pgduet.env").ok()
    container = sandbox.start(env=GOOD)
    assert wait_exit(container) == 1
    one_message(docker("logs", container).text, "holds data that this deployment did not make", "dump it there")
    sandbox.in_volume("test -f /v/data/global/pg_control").ok()


def test_volume_that_is_in_use(sandbox):
    first = sandbox.start(env=GOOD)
    wait_ready(first)
    second = sandbox.start(env=GOOD, name="second")
    assert wait_exit(second) != 0
    assert re.search(r"guard|runs already|another container", docker("logs", second).text), docker("logs", second)
    wait_ready(first)


# -- limits, ports, engine ------------------------------------------------------------------------


def test_preset_beyond_the_limit(make_deployment):
    d = make_deployment(settings={"PGDUET_MEMORY": "large", "POSTGRES_MEMORY_LIMIT": "1G"})
    d.compose("up", "-d")
    wait_until(lambda: "memory = large needs 16.0 GB, and this container has 1.0 GB" in d.logs(MASTER), "the reason")
    assert not d.health(MASTER, "alive")
    d.write_env(PGDUET_MEMORY="auto")
    d.up().wait_streams()


def test_port_in_use(deployment):
    d = deployment
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", d.port(MASTER)))
        other.listen()
        d.compose("up", "-d").fails(f"{d.port(MASTER)}.*(already allocated|address already in use)")
    d.up().wait_streams()


def test_broken_settings_are_told_and_change_nothing(deployment):
    d = deployment.up().wait_streams()
    good = (d.dir / "config/master-conf/postgresql.conf").read_text()
    d.append("config/master-conf/postgresql.conf", "work_mem = lots\n")
    d.exec(MASTER, "pgduet", "config", "reload").fails("work_mem", code=1)
    d.streams()
    (d.dir / "config/master-conf/postgresql.conf").write_text(good)
    d.append("config/pg_hba.conf", "host all all all trust\n")
    d.exec(MASTER, "pgduet", "config", "reload").fails("trust", code=1)
    d.streams()


SCRIPTS = ("check-replication.sh", "list-users.sh", "create-user.sh", "delete-user.sh")
ARGUMENTS = {"create-user.sh": ("zoe", "a-good-password"), "delete-user.sh": ("zoe",)}


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_engine(deployment, script):
    deployment.script(script, *ARGUMENTS.get(script, ()), env={"DOCKER_HOST": "unix:///nowhere/docker.sock"}).fails(
        "the Docker engine does not answer; hint: ", code=3)


def path_with(directory, docker_script):
    """A PATH whose docker is this script, or that has none."""
    directory.mkdir()
    for name in ("bash", "sed", "dirname", "readlink", "env"):
        (directory / name).symlink_to(next(f"{place}/{name}" for place in ("/usr/bin", "/bin")
                                           if os.path.exists(f"{place}/{name}")))
    if docker_script:
        (directory / "docker").write_text(f"#!/bin/bash\n{docker_script}\n")
        (directory / "docker").chmod(0o755)
    return {"PATH": str(directory)}


@pytest.mark.parametrize("fake,pattern", [
    (None, "there is no docker on this machine; hint: "),
    ("echo \"docker: 'compose' is not a docker command.\" >&2; exit 1", "is not Compose 2; hint: "),
    ("echo 1.29.2", "is not Compose 2; hint: "),
])
def test_old_or_no_compose(deployment, fake, pattern):
    env = path_with(deployment.base / "bin", fake)
    for script in SCRIPTS:
        deployment.script(script, *ARGUMENTS.get(script, ()), env=env).fails(pattern, code=3)


def test_volume_at_the_data_directory_itself(sandbox):
    """As with the official image. A copy could not be renamed there, and pgduet's records would be lost."""
    container = sandbox.start("-v", f"{sandbox.volume('inner')}:{DATA}", env=GOOD)
    assert wait_exit(container) == 1
    one_message(docker("logs", container).text, f"mounted at the data directory {DATA} itself",
                "mount it at /bitnami/postgresql, or set PGDATA=")


def test_unknown_user(sandbox):
    container = sandbox.start("--user", "5000:0", env=GOOD)
    assert wait_exit(container) == 1
    one_message(docker("logs", container).text, "user 5000 is not in /etc/passwd")


def test_nonsense_as_login_method(sandbox):
    container = sandbox.start(env={**GOOD, "POSTGRES_HOST_AUTH_METHOD": "nonsense"})
    assert wait_exit(container) == 1
    assert "nonsense" in docker("logs", container).text
    assert sandbox.in_volume("ls -A /v").ok().out == ""


def test_as_root(sandbox):
    container = sandbox.start("--user", "0:0", env=GOOD)
    assert wait_exit(container) == 1
    one_message(docker("logs", container).text, "PostgreSQL refuses to run as root", "--user 0")


def test_read_only_without_a_tmpfs(sandbox):
    container = sandbox.start("--read-only", env=GOOD)
    assert wait_exit(container) == 1
    one_message(docker("logs", container).text, "/pgduet/run cannot be written", "--tmpfs /pgduet/run")


def test_no_capability_to_prepare(deployment):
    """`prepare` as somebody else than root."""
    deployment.compose("run", "--rm", "--user", "1001:0", "init").fails("'prepare' needs root", code=1)
