"""The commands of the setup that this folder replaces, as people have them in their notes and scripts.

That page made directories and owners by hand, and let an editor fill in passwords of base64.
"""

import base64
import os

import pytest

from utils import MASTER, NODES, PASSWORDS, REPLICA, query, wait_until


def base64_password():
    """As `openssl rand -base64 32` prints it, with every character that has a meaning somewhere."""
    return "+/" + base64.b64encode(os.urandom(30)).decode() + "=="


@pytest.fixture(scope="module")
def original(make_module_deployment):
    d = make_module_deployment(env_file=False)
    d.passwords = {name: base64_password() for name in PASSWORDS}
    d.shell("cp .env.example .env")
    text = (d.dir / ".env").read_text()
    for name, password in d.passwords.items():
        text = text.replace(f"\n{name}=\n", f"\n{name}={password}\n")
    (d.dir / ".env").write_text(text)
    d.env["POSTGRES_CPUS"] = "0"
    d.shell("mkdir -p logs/master logs/replica\n"
            "chown -R 1001:1001 logs\n"
            "chmod +x scripts/*.sh\n"
            "docker compose up -d\n"
            "docker compose ps\n").ok()
    return d.wait_streams()


def docker_exec(d, command):
    """`docker exec NODE ...` as it stands, with the private names of the containers."""
    for node in NODES:
        command = command.replace(f"docker exec {node} ", f"docker exec {d.container(node)} ")
    return d.shell(command)


def test_passwords_of_base64_work(original):
    assert query(original.app(MASTER), "SELECT current_user, pg_is_in_recovery()") == [("app_user", False)]
    assert query(original.app(REPLICA), "SELECT current_user, pg_is_in_recovery()") == [("app_user", True)]
    assert query(original.admin(MASTER), "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == [(True,)]


@pytest.mark.parametrize("command,pattern", [
    ('docker exec postgres-master psql -U postgres -c "SELECT * FROM pg_stat_replication;"', "postgres-replica.*streaming"),
    ("./scripts/check-replication.sh", "PGDUET OK"),
    ("docker exec postgres-master pg_isready -U postgres", "accepting connections"),
    ("docker exec postgres-replica pg_isready -U postgres", "accepting connections"),
    ('docker exec postgres-master psql -U postgres -c "SELECT pg_switch_wal();"', "pg_switch_wal"),
    ("docker exec postgres-master du -sh /bitnami/postgresql/data/pg_wal", r"\d+M"),
    ('docker exec postgres-master psql -U postgres -c "SELECT * FROM pg_replication_slots;"', "postgres_replica"),
    ("""docker exec postgres-master psql -U postgres -c "
SELECT pg_size_pretty(pg_wal_lsn_diff(sent_lsn, replay_lsn)) as lag
FROM pg_stat_replication;
\"""", "bytes|kB"),
])
def test_commands(original, command, pattern):
    docker_exec(original, command).ok().has(pattern)


def test_an_inactive_slot_is_dropped(original):
    psql = "docker exec postgres-master psql -U postgres -c"
    docker_exec(original, f"{psql} \"SELECT pg_create_physical_replication_slot('slot_name', true);\"").ok()
    docker_exec(original, f"{psql} \"SELECT pg_drop_replication_slot('slot_name');\"").ok()
    original.streams()


def test_users_and_schemas(original):
    """The application's user is there already; what was to create it adds its schemas."""
    d = original
    for schema in ((), ("app",), ("migration",)):
        d.script("create-user.sh", "app_user", base64_password(), *schema).ok()
    d.script("list-users.sh").ok().has("app_user +app, migration")
    connection = d.app(MASTER)
    query(connection, "CREATE TABLE app.mine (n int)")
    query(connection, "CREATE TABLE public.ours (n int)")
    connection.close()
    d.script("delete-user.sh", "app_user").ok()
    owners = d.psql(MASTER, "SELECT DISTINCT tableowner FROM pg_tables WHERE tablename IN ('mine', 'ours')", dbname="myapp")
    assert owners == "postgres"
    password = base64_password()
    d.script("create-user.sh", "app_user", password, "fresh").ok().has("created user 'app_user'")
    query(d.connect(MASTER, "app_user", password), "CREATE TABLE fresh.t (n int)")
    d.script("delete-user.sh", "app_user", "--drop-schema").ok()
    assert d.psql(MASTER, "SELECT count(*) FROM pg_namespace WHERE nspname = 'fresh'", dbname="myapp") == "0"
    # the environment still names it; what was deleted is not made again behind anybody's back
    d.compose("restart").ok()
    d.wait_streams()
    assert d.psql(MASTER, "SELECT count(*) FROM pg_roles WHERE rolname = 'app_user'") == "0"


def test_names_without_the_quotes_they_need(original):
    """That page wrote synchronous_standby_names = 'postgres-replica', which no PostgreSQL accepts."""
    path = original.dir / "config/master-conf/postgresql.conf"
    before = path.read_text()
    path.write_text(before + "synchronous_standby_names = 'postgres-replica'\n")
    original.exec(MASTER, "pgduet", "config", "reload").fails("needs double quotes within the single ones", code=1)
    path.write_text(before)
    original.exec(MASTER, "pgduet", "config", "reload").ok()
    wait_until(original.streams, "both nodes as before")
