"""Waiting, docker, and private copies of the Compose deployment.

Nothing here sleeps for a fixed time: every wait names what it waits for, has a deadline, and fails with what it
last saw. Names, ports, volumes and networks are private, so that tests run beside each other and beside a
deployment in use.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg2

from ports import NeighbouringPorts
from waiting import DEFAULT_DEADLINE, hold_true, wait_until  # noqa: F401 (for the tests)

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "postgres-replica"
IMAGE = os.environ.get("PGDUET_IMAGE") or "pgduet:17"
NODES = ("postgres-master", "postgres-replica")
MASTER, REPLICA = NODES
PASSWORDS = ("POSTGRES_ADMIN_PASSWORD", "POSTGRES_REPLICATION_PASSWORD", "POSTGRES_PASSWORD")
DATA = "/bitnami/postgresql/data"
COMMAND_TIMEOUT = 120.0


class Result:
    """What a command did, with assertions that print all of it when they fail."""

    def __init__(self, args, code, out, err, seconds):
        self.args, self.code, self.out, self.err, self.seconds = args, code, out, err, seconds

    @property
    def text(self):
        return self.out + self.err

    @property
    def json(self):
        return json.loads(self.out)

    def __str__(self):
        command = self.args if isinstance(self.args, str) else " ".join(map(str, self.args))
        return (f"$ {command}\n[exit {self.code}, {self.seconds:.2f} s]\n"
                f"-- stdout\n{self.out}\n-- stderr\n{self.err}")

    def ok(self):
        assert self.code == 0, f"must succeed:\n{self}"
        return self

    def fails(self, *patterns, code=None):
        """Not 0 (or exactly `code`), and all the patterns in what it printed."""
        assert self.code != 0 if code is None else self.code == code, f"must fail with {code}:\n{self}"
        for pattern in patterns:
            assert re.search(pattern, self.text, re.I | re.S), f"no {pattern!r} in:\n{self}"
        return self

    def has(self, *patterns):
        for pattern in patterns:
            assert re.search(pattern, self.text, re.I | re.S), f"no {pattern!r} in:\n{self}"
        return self


def run(args, env=None, cwd=None, input=None, timeout=COMMAND_TIMEOUT, shell=False):
    """Run a command with nothing on its standard input unless told."""
    began = time.monotonic()
    stdin = {"input": input} if input is not None else {"stdin": subprocess.DEVNULL}
    try:
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", args] if shell else list(map(str, args)),
                              env={**os.environ, **(env or {})}, cwd=cwd or "/", text=True, errors="replace",
                              capture_output=True, timeout=timeout, **stdin)
    except subprocess.TimeoutExpired as e:
        raise AssertionError(f"did not end within {timeout:g} s: {args}\n{e.stdout!r}\n{e.stderr!r}") from None
    return Result(args, done.returncode, done.stdout, done.stderr, time.monotonic() - began)


def docker(*args, **options):
    return run(["docker", *args], **options)


def inspect(container, template):
    return docker("inspect", "--format", template, container).ok().out.strip()


def obstacle():
    """Why nothing here can run, or None."""
    if shutil.which("docker") is None:
        return "there is no docker on this machine"
    if docker("version").code != 0:
        return "no Docker engine answers"
    if docker("compose", "version").code != 0:
        return "there is no Compose plugin"
    if docker("image", "inspect", IMAGE).code != 0:
        return f"there is no image {IMAGE}: build it with scripts/docker.sh image"
    return None


def new_tag():
    return f"pgduet-test-{secrets.token_hex(4)}"


def new_password():
    return secrets.token_hex(24)


# -- ports ----------------------------------------------------------------------------------------


class Ports(NeighbouringPorts):
    """Four of 33000 to 41000."""

    def __init__(self):
        super().__init__("docker", [33000 + secrets.randbelow(2000) * 4 for _ in range(500)], 4)


def connect(port, user, password, dbname, host="127.0.0.1", **options):
    connection = psycopg2.connect(host=host, port=port, user=user, password=password, dbname=dbname,
                                  connect_timeout=5, **options)
    connection.autocommit = True
    return connection


def query(connection, sql, *parameters):
    """All rows, or [] where there is no result."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters or None)
        return cursor.fetchall() if cursor.description else []


# -- containers on their own ----------------------------------------------------------------------


class Sandbox:
    """Containers, volumes and images of one test, removed afterwards."""

    def __init__(self):
        self.tag = new_tag()
        self.ports = Ports()
        self.base = Path(tempfile.mkdtemp(prefix="pgduet-docker-", dir="/tmp"))
        self.base.chmod(0o755)
        self.containers = []
        self.volumes = []
        self.images = []

    @property
    def port(self):
        return self.ports.first

    def volume(self, name="data"):
        volume = f"{self.tag}-{name}"
        if volume not in self.volumes:
            docker("volume", "create", volume).ok()
            self.volumes.append(volume)
        return volume

    def in_volume(self, script, volume=None, user="0:0"):
        """Run a shell in a container that has the volume as /v."""
        return docker("run", "--rm", "--user", user, "--network", "none", "-v", f"{volume or self.volume()}:/v",
                      "--entrypoint", "sh", IMAGE, "-euc", script)

    def start(self, *args, env=None, command=(), name="c", volume=None, publish=False, image=None):
        """docker run -d; the container's name."""
        container = f"{self.tag}-{name}"
        options = ["-d", "--name", container, "-v", f"{volume or self.volume()}:/bitnami/postgresql"]
        for key, value in (env or {}).items():
            options += ["-e", f"{key}={value}"]
        if publish:
            options += ["-p", f"127.0.0.1:{self.port}:5432"]
        if container not in self.containers:
            self.containers.append(container)
        docker("run", *options, *args, image or IMAGE, *command).ok()
        return container

    def remove(self, container):
        docker("rm", "-f", "-v", container).ok()
        self.containers.remove(container)

    def image(self, dockerfile, name="image"):
        """An image derived from the one under test."""
        image = f"{self.tag}-{name}"
        self.images.append(image)
        run(["docker", "build", "-q", "-t", image, "-"], input=dockerfile, env={"DOCKER_BUILDKIT": "0"}).ok()
        return image

    def report(self):
        return "\n".join(str(docker("logs", "--tail", "60", c)) for c in self.containers)

    def destroy(self):
        for container in self.containers:
            docker("rm", "-f", "-v", container)
        for volume in self.volumes:
            docker("volume", "rm", "-f", volume)
        for image in self.images:
            docker("rmi", "-f", image)
        remove_tree(self.base)
        self.ports.release()


def remove_tree(path):
    """Also what belongs to the user of a container."""
    try:
        shutil.rmtree(path)
    except PermissionError:
        docker("run", "--rm", "--user", "0:0", "--network", "none", "-v", f"{path}:/v", "--entrypoint", "sh",
               IMAGE, "-c", "rm -rf /v/* /v/.[!.]*")
        shutil.rmtree(path, ignore_errors=True)


def logs(container):
    return docker("logs", container).ok().text


def is_running(container):
    return inspect(container, "{{.State.Running}}") == "true"


def wait_exit(container, deadline=DEFAULT_DEADLINE):
    """Its exit code."""
    wait_until(lambda: inspect(container, "{{.State.Status}}") == "exited", f"{container} to end", deadline)
    return int(inspect(container, "{{.State.ExitCode}}"))


def wait_log(container, pattern, deadline=DEFAULT_DEADLINE):
    """The log, as soon as it has the pattern."""

    def found():
        text = logs(container)
        assert re.search(pattern, text, re.I | re.S), f"no {pattern!r} in {text[-3000:]}"
        return text

    return wait_until(found, f"{pattern!r} in the log of {container}", deadline, 0.2)


def wait_ready(container, deadline=DEFAULT_DEADLINE):
    def ready():
        done = docker("exec", container, "pgduet", "health", "ready")
        assert done.code == 0, f"{done}\n{docker('logs', '--tail', '30', container)}"
        return True

    wait_until(ready, f"{container} to be ready", deadline)


def psql(container, sql, user="postgres", dbname="postgres"):
    """Rows as psql -At prints them, through the socket without a password."""
    return docker("exec", container, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", user, "-d", dbname, "-c",
                  sql).ok().out.strip()


# -- the Compose deployment -----------------------------------------------------------------------


class Deployment:
    """A private copy of the folder, with names and ports of its own."""

    def __init__(self, env_file=True, image=None, settings=None):
        self.tag = new_tag()
        self.ports = Ports()
        self.base = Path(tempfile.mkdtemp(prefix="pgduet-docker-", dir="/tmp"))
        self.base.chmod(0o755)
        self.dir = self.base / "postgres-replica"
        self.passwords = {name: new_password() for name in PASSWORDS}
        self.connections = []
        # The environment wins over .env, so that the file may be as the page makes it.
        self.env = {
            "COMPOSE_PROJECT_NAME": self.tag,
            "PGDUET_IMAGE": image or IMAGE,
            "POSTGRES_MASTER_PORT": str(self.port(MASTER)),
            "POSTGRES_REPLICA_PORT": str(self.port(REPLICA)),
            "DOCKER_BUILDKIT": "0",
        }
        self._copy()
        if env_file:
            self.write_env(**(settings or {}))

    def _copy(self):
        ignore = shutil.ignore_patterns(".env", "logs", "secrets", "docker-compose.override.yml")
        shutil.copytree(FOLDER, self.dir, ignore=ignore)
        self.make_private()

    def make_private(self):
        """Names that are the same for all copies of the folder, with our tag."""
        self.edit("docker-compose.yml",
                  (r"container_name: (\S+)", rf"container_name: {self.tag}-\1"),
                  (r"name: postgres-backend", f"name: {self.tag}-backend"),
                  (r"context: \.\.", f"context: {REPOSITORY}"))

    # files

    def edit(self, path, *replacements):
        file = self.dir / path
        text = file.read_text()
        for pattern, replacement in replacements:
            text, count = re.subn(pattern, replacement, text)
            assert count, f"{path} has no {pattern!r}"
        file.write_text(text)

    def append(self, path, text):
        with open(self.dir / path, "a", encoding="utf-8") as f:
            f.write(text)

    def write_env(self, **settings):
        """The example with passwords; None removes a line, other values are set."""
        values = {"POSTGRES_MEMORY_LIMIT": "1G", "POSTGRES_CPUS": "0", **self.passwords, **settings}
        lines = (self.dir / ".env.example").read_text().splitlines()
        lines = [line for line in lines if line.split("=")[0] not in values]
        lines += [f"{name}={value}" for name, value in values.items() if value is not None]
        file = self.dir / ".env"
        file.write_text("\n".join(lines) + "\n")
        file.chmod(0o600)

    def read_env(self):
        lines = (self.dir / ".env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))

    # names

    def port(self, node):
        return self.ports.first + NODES.index(node)

    def container(self, node):
        return f"{self.tag}-{node}"

    def volume(self, name):
        return f"{self.tag}_{name}"

    @property
    def network(self):
        return f"{self.tag}-backend"

    # commands

    def shell(self, script, **options):
        env = {**self.env, **options.pop("env", {})}
        return run(script, env=env, cwd=options.pop("cwd", self.dir), shell=True, **options)

    def compose(self, *args, **options):
        env = {**self.env, **options.pop("env", {})}
        return run(["docker", "compose", *args], env=env, cwd=self.dir, **options)

    def script(self, name, *args, **options):
        env = {**self.env, **options.pop("env", {})}
        return run([self.dir / "scripts" / name, *args], env=env, cwd=options.pop("cwd", "/"), **options)

    def exec(self, node, *args, **options):
        return docker("exec", self.container(node), *args, **options)

    def logs(self, *services):
        return self.compose("logs", "--no-color", *services).text

    # state

    def up(self, *services):
        self.compose("up", "-d", *services).ok()
        return self

    def psql(self, node, sql, user="postgres", dbname="postgres"):
        return psql(self.container(node), sql, user, dbname)

    def admin(self, node, dbname="myapp", **options):
        return self.connect(node, "postgres", "POSTGRES_ADMIN_PASSWORD", dbname, **options)

    def app(self, node, dbname="myapp", **options):
        return self.connect(node, "app_user", "POSTGRES_PASSWORD", dbname, **options)

    def connect(self, node, user, password, dbname="myapp", port=None, **options):
        connection = connect(port or self.port(node), user, self.passwords.get(password, password), dbname, **options)
        self.connections.append(connection)
        return connection

    def status(self):
        for node in NODES:
            done = docker("exec", self.container(node), "pgduet", "status", "--json")
            if done.code == 0:
                return done.json
        raise AssertionError(f"no node answers: {done}")

    def node(self, name):
        return next(node for node in self.status()["nodes"] if node["name"] == name)

    def health(self, node, what):
        return self.exec(node, "pgduet", "health", what).code == 0

    def docker_health(self, node):
        return inspect(self.container(node), "{{.State.Health.Status}}")

    def streams(self):
        status = self.status()
        roles = {node["name"]: (node["role"], node["replication"]) for node in status["nodes"]}
        assert roles == {MASTER: ("primary", None), REPLICA: ("replica", "streaming")}, roles
        return True

    def wait_streams(self, deadline=DEFAULT_DEADLINE):
        wait_until(self.streams, "a primary and a replica that streams", deadline)
        return self

    def wait_healthy(self, deadline=DEFAULT_DEADLINE):
        for node in NODES:
            wait_until(lambda: self.docker_health(node) == "healthy", f"{node} to be healthy", deadline)
        return self

    def write(self, value):
        """A row on the primary, as an application writes it."""
        connection = self.app(MASTER)
        query(connection, "CREATE TABLE IF NOT EXISTS written (value text)")
        query(connection, "INSERT INTO written VALUES (%s)", value)
        connection.close()

    def rows(self, node):
        connection = self.app(node)
        try:
            return [row[0] for row in query(connection, "SELECT value FROM written ORDER BY value")]
        finally:
            connection.close()

    def wait_rows(self, *values):
        for node in NODES:
            wait_until(lambda: self.rows(node) == sorted(values), f"{values} on {node}")

    def system_identifier(self, node=MASTER):
        return self.psql(node, "SELECT system_identifier FROM pg_control_system()")

    # end

    def report(self):
        return f"{self.compose('ps', '-a')}\n{self.compose('logs', '--no-color', '--tail', '80')}"

    def destroy(self):
        for connection in self.connections:
            with contextlib.suppress(psycopg2.Error):
                connection.close()
        self.compose("kill")  # nothing in it is worth a shutdown
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "1")
        mine = docker("ps", "-aq", "--filter", f"name={self.tag}").out.split()
        if mine:
            docker("rm", "-f", "-v", *mine)
        for volume in docker("volume", "ls", "-q", "--filter", f"name={self.tag}").out.split():
            docker("volume", "rm", "-f", volume)
        docker("network", "rm", self.network)
        remove_tree(self.base)
        self.ports.release()
