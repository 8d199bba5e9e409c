"""The page of the deployment, run as it stands: every command block in order, every effect looked at.

A block without an entry here fails, and so does an entry without a block, so that page and test cannot part.
Only what must be private is replaced: container names behind `docker exec` and its kin, ports, the image's name.
"""

import re
import shlex
from datetime import datetime, timezone
from urllib.parse import parse_qs, urlsplit

import pytest

from utils import (DATA, FOLDER, IMAGE, MASTER, NODES, PASSWORDS, REPLICA, REPOSITORY, Deployment, Ports, docker,
                   inspect, query, run, wait_log, wait_ready, wait_until)

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
RUNNABLE = ("bash", "sql")
FOLLOW_SECONDS = 3
SUDO = "sudo() { \"$@\"; }\n"  # the runner may do what a person does with sudo, or is root


class Block:
    def __init__(self, kind, text):
        self.kind, self.text = kind, text
        lines = [line for line in text.splitlines() if line and not line.startswith(("#", "--"))]
        self.key = lines[0] if lines else ""


def read_blocks():
    """With a number behind the first line where it is not the only one."""
    blocks = [Block(*match.groups()) for match in FENCE.finditer((FOLDER / "README.md").read_text())]
    seen = {}
    for block in blocks:
        seen[block.key] = seen.get(block.key, 0) + 1
        if seen[block.key] > 1:
            block.key = f"{block.key} #{seen[block.key]}"
    return blocks


BLOCKS = read_blocks()
COMMANDS = [block for block in BLOCKS if block.kind in RUNNABLE]


class Page:
    """The deployment that the page makes, and what is private about it."""

    def __init__(self):
        # An image of its own name, because the page builds it anew.
        self.deployment = Deployment(env_file=False)
        self.image = f"{self.deployment.tag}:17"
        docker("tag", IMAGE, self.image).ok()
        self.deployment.env["PGDUET_IMAGE"] = self.image
        (self.deployment.base / "docker").symlink_to(REPOSITORY / "docker")
        self.single = f"{self.deployment.tag}-single"
        self.single_ports = Ports()
        self.broken = None
        self.memo = {}

    def private(self, text):
        d = self.deployment
        text = re.sub(r"\bdocker (exec|inspect|logs)((?: -\w+)*) (postgres-\w+)",
                      lambda m: f"docker {m[1]}{m[2]} {d.container(m[3])}", text)
        text = text.replace("pgduet-single", self.single).replace("5434:", f"{self.single_ports.first}:")
        text = text.replace(" pgduet:17", f" {self.image}").replace("postgres-backend", d.network)
        for node, port in zip(NODES, ("5432", "5433")):
            text = text.replace(f"localhost:{port}", f"localhost:{d.port(node)}")
        return text

    def script(self, block):
        if block.kind == "sql":
            return f"{self.private('docker exec -i postgres-master')} psql -U postgres -v ON_ERROR_STOP=1 " \
                   f"<<'END'\n{block.text}END\n"
        lines = self.private(block.text).splitlines()
        follow = re.compile(r"\b(logs|tail) -f ")
        return SUDO + "\n".join(until_the_timeout(line) if follow.search(line + " ") else line for line in lines)

    def destroy(self):
        docker("rm", "-f", "-v", self.single)
        docker("volume", "rm", "-f", self.single)
        self.deployment.destroy()
        docker("rmi", "-f", self.image)
        self.single_ports.release()


def until_the_timeout(line):
    """A command that follows a file until somebody ends it."""
    line = line.removeprefix("sudo ")
    return f"timeout {FOLLOW_SECONDS} {line} || [ $? = 124 ]"


# -- effects --------------------------------------------------------------------------------------
#
# Each gets the page, the deployment and what the block printed.


def env_is_filled(page, d, result):
    env = d.read_env()
    values = [env[name] for name in PASSWORDS]
    assert all(len(value) >= 32 for value in values), "passwords of 32 characters or more"
    assert len(set(values)) == len(values)
    assert (d.dir / ".env").stat().st_mode & 0o777 == 0o600
    d.passwords = {name: env[name] for name in PASSWORDS}


def cluster_is_up(page, d, result):
    result.has(MASTER, REPLICA, rf"127\.0\.0\.1:{d.port(MASTER)}->5432")
    d.wait_healthy().wait_streams()
    assert (d.dir / "logs/master").is_dir() and (d.dir / "logs/replica").is_dir()


def logs_are_shown(page, d, result):
    result.has(r"postgres-master +\| .*primary", r"postgres-replica +\| .*replica")


def replication_is_shown(page, d, result):
    result.has(r"postgres-replica +replica +running", "streaming", "PGDUET OK", r"postgres_replica *\| t")


def row_came_across(page, d, result):
    assert re.search(r"-\n \d{4}-\d\d-\d\d .*\n\(1 row\)", result.out), result
    assert d.psql(MASTER, "SELECT to_regclass('public.hello')", dbname="myapp") == ""


def small_preset(page, d, result):
    d.wait_streams()
    assert d.psql(REPLICA, "SHOW shared_buffers") == "512MB"


def preset_is_shown(page, d, result):
    result.has(r"shared_buffers *\| 512MB", r"effective_cache_size *\| 1536MB", r"work_mem *\| 4MB")


def work_mem_is_set(page, d, result):
    result.has(r" 16MB\n")
    assert d.psql(REPLICA, "SHOW work_mem") == "4MB", "it is a setting of the primary"


def limits_are_shown(page, d, result):
    assert result.out.startswith(f"{2 << 30} bytes, "), result
    for node in NODES:
        assert int(inspect(d.container(node), "{{.HostConfig.NanoCpus}}")) in (1000000000, 2000000000)


def synchronous(page, d, result):
    wait_until(lambda: d.psql(MASTER, "SELECT sync_state FROM pg_stat_replication") == "sync", "a sync replica")
    assert d.psql(MASTER, "SHOW synchronous_standby_names") == '"postgres-replica"'


def asynchronous(page, d, result):
    wait_until(lambda: d.psql(MASTER, "SELECT sync_state FROM pg_stat_replication") == "async", "async again")


def secrets_are_hidden(page, d, result):
    d.wait_streams()
    for node in NODES:
        shown = docker("inspect", d.container(node)).ok().out
        assert not [name for name in PASSWORDS if d.passwords[name] in shown], "a password in docker inspect"
    assert not [name for name in PASSWORDS if d.passwords[name] in (d.dir / ".env").read_text()]
    assert query(d.app(MASTER), "SELECT 1") == [(1,)]


def users_are_made(page, d, result):
    result.has("created user 'report'", "created user 'shop'", "added schema 'app'", "added schema 'migration'",
               "created user 'batch'")
    users = {user["name"]: user for user in d.script("list-users.sh", "--json").ok().json["users"]}
    assert users["app_user"]["schemas"] == "app, migration"
    assert users["shop"]["schemas"] == "shop"
    assert d.psql(MASTER, "SELECT rolcreatedb FROM pg_roles WHERE rolname = 'shop'") == "t"
    assert query(d.app(MASTER), "SELECT 1") == [(1,)], "app_user's password stayed"
    page.memo["report"] = verifier(d, "report")


def verifier(d, user):
    return d.psql(MASTER, f"SELECT rolpassword FROM pg_authid WHERE rolname = '{user}'")


def password_is_changed(page, d, result):
    assert verifier(d, "report") != page.memo["report"]


def users_are_listed(page, d, result):
    result.has("app_user +.*app, migration", "report", "shop", "postgres")


def users_are_deleted(page, d, result):
    assert d.psql(MASTER, "SELECT count(*) FROM pg_roles WHERE rolname IN ('report', 'shop')") == "0"
    assert d.psql(MASTER, "SELECT count(*) FROM pg_namespace WHERE nspname = 'shop'", dbname="myapp") == "0"


def lag_is_shown(page, d, result):
    result.has("PGDUET OK", r"\| streaming \| \d+ bytes")


def monitoring_output(page, d, result):
    result.has(r"PGDUET OK .*lag_", r'"primary": ?"postgres-master"')


def healthy(page, d, result):
    assert result.out.splitlines()[:2] == ["healthy", "healthy"], result
    assert result.out.count("accepting connections") == 2


def node_logs(page, d, result):
    result.has(r"postgres-master +\| ", r"postgres-replica +\| ")


def log_files(page, d, result):
    day = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    result.has("database system is ready to accept")
    assert (d.dir / f"logs/master/postgresql-{day}.log").stat().st_size > 0
    assert (d.dir / f"logs/replica/postgresql-slave-{day}.log").stat().st_size > 0


def queries_answer(page, d, result):
    result.has(r"SELECT \* FROM pg_stat_activity", r"myapp +\| \d+ kB", r"postgres_replica *\| physical *\| t",
               r"pg_is_in_recovery *\n-+\n f\n")


def restarted(page, d, result):
    d.wait_streams()
    assert query(d.app(MASTER), "SELECT 1") == [(1,)]


def same_image_again(page, d, result):
    d.wait_streams()
    assert docker("image", "inspect", d.env["PGDUET_IMAGE"]).code == 0


def base_image_is_there(page, d, result):
    assert docker("image", "inspect", "debian:trixie-slim").code == 0


def replica_logs(page, d, result):
    result.has("PGDUET OK", r"postgres-replica +\| ")


def replica_is_new(page, d, result):
    d.wait_streams(60)
    assert d.exec(REPLICA, "test", "-e", f"{DATA}.old/PG_VERSION").code == 0


def old_copy_is_gone(page, d, result):
    assert d.exec(REPLICA, "test", "-e", f"{DATA}.old").code != 0


def lag_alone(page, d, result):
    result.has(r"\d+ bytes\n\(1 row\)")


def connection_checks(page, d, result):
    result.has(r"postgres-master.*\(healthy\)", r"\nhealthy\n", r"host +all +all +all +scram-sha-256")


def wal_space(page, d, result):
    result.has(rf"\d+M\s+{DATA}/pg_wal", r"postgres_replica *\|")


def slot_is_dropped(page, d, result):
    result.has("pg_drop_replication_slot")
    active = "SELECT count(*) FROM pg_replication_slots WHERE active"
    wait_until(lambda: d.psql(MASTER, active) == "1", "the slot to be made again", 60)
    d.wait_streams()


def dump_and_restore(page, d, result):
    assert (d.dir / "myapp.dump").read_bytes()[:5] == b"PGDMP"
    schemas = d.psql(MASTER, "SELECT count(*) FROM pg_namespace WHERE nspname IN ('app', 'migration')",
                     dbname="myapp")
    assert schemas == "2"


def single_container(page, d, result):
    wait_ready(page.single)
    wait_log(page.single, "official")
    assert inspect(page.single, "{{(index (index .NetworkSettings.Ports \"5432/tcp\") 0).HostIp}}") == "127.0.0.1"


EFFECTS = {
    "cp .env.example .env": env_is_filled,
    "docker compose up -d": cluster_is_up,
    "docker compose logs -f": logs_are_shown,
    "./scripts/check-replication.sh": replication_is_shown,
    'docker exec postgres-master psql -U postgres -d myapp -c "CREATE TABLE hello AS SELECT now() AS at"':
        row_came_across,
    "sed -i 's/^PGDUET_MEMORY=.*/PGDUET_MEMORY=small/' .env": small_preset,
    'docker exec postgres-master psql -U postgres -c "SELECT name, current_setting(name) FROM pg_settings':
        preset_is_shown,
    'echo "work_mem = 16MB" >> config/master-conf/postgresql.conf': work_mem_is_set,
    "docker inspect postgres-master --format='{{.HostConfig.Memory}} bytes, {{.HostConfig.NanoCpus}} CPUs / 10^9'":
        limits_are_shown,
    "echo \"synchronous_standby_names = '\\\"postgres-replica\\\"'\" >> config/master-conf/postgresql.conf":
        synchronous,
    "sed -i '/^synchronous_standby_names/d' config/master-conf/postgresql.conf": asynchronous,
    "mkdir -m 700 secrets": secrets_are_hidden,
    './scripts/create-user.sh app_user "$(openssl rand -base64 32)"': users_are_made,
    "openssl rand -hex 32 | docker exec -i postgres-master pgduet user password report --password-stdin": password_is_changed,
    "./scripts/list-users.sh": users_are_listed,
    "./scripts/delete-user.sh report": users_are_deleted,
    "./scripts/check-replication.sh #2": lag_is_shown,
    "docker exec postgres-master pgduet check --max-lag 64MB": monitoring_output,
    "docker inspect postgres-master --format='{{.State.Health.Status}}'": healthy,
    "docker compose logs -f postgres-master": node_logs,
    "tail -f logs/master/postgresql-$(date -u +%Y-%m-%d).log": log_files,
    "SELECT * FROM pg_stat_activity WHERE state = 'active';": queries_answer,
    "docker compose restart": restarted,
    "docker compose build": same_image_again,
    "sudo ../docker/base-image.sh": base_image_is_there,
    "./scripts/check-replication.sh #3": replica_logs,
    "docker compose stop postgres-replica": replica_is_new,
    "docker exec postgres-replica rm -rf /bitnami/postgresql/data.old": old_copy_is_gone,
    'docker exec postgres-master psql -U postgres -c "': lag_alone,
    "docker compose ps": connection_checks,
    "docker exec postgres-master du -sh /bitnami/postgresql/data/pg_wal": wal_space,
    "docker compose stop postgres-replica #2": slot_is_dropped,
    "docker exec postgres-master pg_dump -U postgres -Fc myapp > myapp.dump": dump_and_restore,
    'docker run -d --name pgduet-single -e POSTGRES_PASSWORD="$(openssl rand -hex 32)" \\': single_container,
}


# -- tests ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page():
    page = Page()
    yield page
    page.destroy()


def test_every_block_has_an_assertion():
    keys = [block.key for block in COMMANDS]
    assert keys == list(EFFECTS), "the page's command blocks and EFFECTS, in order"


def test_blocks_have_a_known_kind():
    assert {block.kind for block in BLOCKS} <= {*RUNNABLE, "text", "yaml", "conf"}


@pytest.mark.parametrize("block", COMMANDS, ids=lambda block: re.sub(r"\W+", "-", block.key)[:60])
def test_block(page, block):
    if page.broken:
        pytest.fail(f"not run, because this failed before: {page.broken}", pytrace=False)
    page.broken = block.key
    d = page.deployment
    result = d.shell(page.script(block), timeout=600).ok()
    EFFECTS[block.key](page, d, result)
    page.broken = None


def uris():
    text = "".join(block.text for block in BLOCKS if block.kind == "text")
    return re.findall(r"postgresql://[^\s\"]+", text)


def test_connection_strings(page):
    """All of them, as a client of the machine or in another container."""
    d = page.deployment
    assert page.broken is None, "the deployment of the page is not up"
    found = uris()
    assert len(found) == 8, found
    for uri in found:
        uri = page.private(uri).replace("ADMIN_PASSWORD", d.passwords["POSTGRES_ADMIN_PASSWORD"])
        uri = uri.replace("PASSWORD", d.passwords["POSTGRES_PASSWORD"])
        parts = urlsplit(uri)
        plain, schema = uri.split("?")[0], parse_qs(parts.query).get("schema", ["public"])[0]
        # as a client in the network or, for the published ports, on the host
        network = d.network if parts.hostname in NODES else "host"
        sql = f"SET search_path = {schema}; SELECT current_schema(), current_user, pg_is_in_recovery()"
        out = run(["docker", "run", "--rm", "--network", network, "-e", f"URI={plain}", "--entrypoint", "sh", IMAGE,
                   "-c", f"psql \"$URI\" -XAtqc {shlex.quote(sql)}"]).ok().out.strip()
        reads = parts.hostname == REPLICA or parts.port == d.port(REPLICA)
        assert out == f"{schema}|{parts.username}|{'t' if reads else 'f'}", uri


def test_tree_is_the_one_on_the_page(page):
    """Every file of the drawing exists, and every file of the folder is in it."""
    tree = next(block.text for block in BLOCKS if block.text.startswith("postgres-replica/\n"))
    drawn, stack = set(), []
    for line in tree.splitlines()[1:]:
        match = re.match(r"((?:│   |    )*)(?:├|└)── (\S+)", line)
        depth = len(match[1]) // 4
        stack = [*stack[:depth], match[2].rstrip("/")]
        drawn.add("/".join(stack))
    there = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()}
    there -= {"README.md", ".gitignore", "certs/.gitkeep"}
    assert {path for path in drawn if "." in path.split("/")[-1]} >= there - {".env"}
    missing = [path for path in drawn if not (page.deployment.dir / path).exists()]
    assert not missing, missing


def test_ignored_files():
    listed = next(block.text for block in BLOCKS if block.text.startswith(".env\n"))
    assert listed == (FOLDER / ".gitignore").read_text()
