"""One container alone, and what it makes of the official image's variables and of Bitnami's."""

import gzip
import os
import re

import psycopg2
import pytest

from utils import (DATA, IMAGE, connect, docker, inspect, is_running, new_password, psql, query, run, wait_exit,
                   wait_log, wait_ready, wait_until)


def client(sandbox, user, password, dbname, port=None):
    return connect(port or sandbox.port, user, password, dbname)


def scripts_dir(sandbox, **scripts):
    place = sandbox.base / "initdb"
    place.mkdir(exist_ok=True)
    for name, text in scripts.items():
        file = place / name.replace("__", ".")
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        file.chmod(0o644)
    return place


# -- the image ------------------------------------------------------------------------------------


def test_image_is_small_and_not_root():
    image = docker("image", "inspect", IMAGE).ok().json[0]
    assert image["Size"] <= 450 << 20
    assert image["Config"]["User"] == "1001:0"
    assert "bitnami/postgresql" in str(image["Config"]["Volumes"])


def test_what_is_in_it():
    for program, pattern in (("postgres --version", r"17\."), ("pgbouncer --version", r"1\.2"),
                             ("pgbackrest version", r"2\.5"), ("pgduet version", "pgduet")):
        docker("run", "--rm", IMAGE, *program.split()).ok().has(pattern)


def test_jit_is_off_and_harmless(sandbox):
    container = sandbox.start(env={"POSTGRES_PASSWORD": new_password()})
    wait_ready(container)
    assert psql(container, "SHOW jit") == "off"
    assert psql(container, "SET jit = on; SET jit_above_cost = 0; SELECT sum(i) FROM generate_series(1, 1000) i") == \
        "500500"


# -- the official image's variables ---------------------------------------------------------------


def test_only_a_password(sandbox):
    password = new_password()
    container = sandbox.start(env={"POSTGRES_PASSWORD": password}, publish=True)
    wait_ready(container)
    wait_log(container, "environment as for the official PostgreSQL image")
    assert query(client(sandbox, "postgres", password, "postgres"), "SELECT 1") == [(1,)]
    with pytest.raises(psycopg2.OperationalError, match="password"):
        client(sandbox, "postgres", "wrong", "postgres")
    assert docker("exec", container, "psql", "-Atc", "SELECT current_user", "-U", "postgres").ok().out == "postgres\n"
    assert docker("exec", container, "pg_isready").ok()
    # the server's own log is the container's, each line once
    psql(container, "DO $$ BEGIN RAISE WARNING 'marker-log'; END $$")
    wait_log(container, "marker-log")
    assert docker("logs", container).text.count("WARNING:  marker-log") == 1
    assert password not in docker("logs", container).text


def test_user_database_and_scripts(sandbox):
    password = new_password()
    # a script's own variables are its own business
    place = scripts_dir(
        sandbox, **{"05__sh": '[ "$POSTGRES_EXTRA_PASSWORD" = extra ]\n'}, **{"10-table__sql": "CREATE TABLE steps (n serial, name text);",
                    "20__sql__gz": gzip.compress(b"INSERT INTO steps (name) VALUES ('gz');"),
                    "30__sh": "psql -c \"INSERT INTO steps (name) VALUES ('$POSTGRES_USER $POSTGRES_DB')\"\n"})
    env = {"POSTGRES_USER": "shop", "POSTGRES_PASSWORD": password, "POSTGRES_DB": "store",
           "POSTGRES_INITDB_ARGS": "--wal-segsize=4", "POSTGRES_EXTRA_PASSWORD": "extra"}
    container = sandbox.start("-v", f"{place}:/docker-entrypoint-initdb.d:ro", env=env, publish=True)
    wait_ready(container)
    connection = client(sandbox, "shop", password, "store")
    assert query(connection, "SELECT name FROM steps ORDER BY n") == [("gz",), ("shop store",)]
    assert query(connection, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == [(True,)]
    assert query(connection, "SHOW wal_segment_size") == [("4MB",)]
    # once only: neither at a restart, nor in another container on the volume
    docker("restart", container).ok()
    wait_ready(container)
    sandbox.remove(container)
    container = sandbox.start("-v", f"{place}:/docker-entrypoint-initdb.d:ro", env=env)
    wait_ready(container)
    assert psql(container, "SELECT count(*) FROM steps", "shop", "store") == "2"


def test_a_script_that_fails_is_shown_and_nothing_kept(sandbox):
    place = scripts_dir(sandbox, **{"10__sql": "CREATE TABLE kept (n int);\n", "20__sql": "SELECT nonsense;\n"})
    env = {"POSTGRES_PASSWORD": new_password()}
    container = sandbox.start("-v", f"{place}:/docker-entrypoint-initdb.d:ro", env=env)
    wait_log(container, r"init script .*20\.sql")
    assert 'column "nonsense" does not exist' in docker("logs", container).text
    wait_until(lambda: docker("exec", container, "pgduet", "health", "alive").code == 1, "not to be alive")
    assert docker("exec", container, "test", "-e", DATA).code == 1
    (place / "20.sql").write_text("SELECT 1;\n")
    docker("restart", container).ok()
    wait_ready(container)
    assert psql(container, "SELECT count(*) FROM kept") == "0"


def test_no_password_no_database(sandbox):
    container = sandbox.start()
    assert wait_exit(container) == 1
    assert re.search(r"POSTGRES_PASSWORD is not set, and a new database needs a password; hint: docker run -e",
                     docker("logs", container).text)
    assert sandbox.in_volume("ls -A /v").ok().out == ""


def test_trust_is_obeyed_and_said(sandbox):
    container = sandbox.start(env={"POSTGRES_HOST_AUTH_METHOD": "trust"}, publish=True)
    wait_ready(container)
    wait_log(container, "let in without a password")
    psql(container, "CREATE ROLE someone LOGIN")
    assert query(client(sandbox, "someone", "", "postgres"), "SELECT 1") == [(1,)]


def test_password_from_a_file(sandbox):
    password = new_password()
    file = sandbox.base / "password"
    file.write_text(password + "\n")
    file.chmod(0o644)
    container = sandbox.start("-v", f"{file}:/run/secrets/pw:ro", env={"POSTGRES_PASSWORD_FILE": "/run/secrets/pw"},
                              publish=True)
    wait_ready(container)
    assert query(client(sandbox, "postgres", password, "postgres"), "SELECT 1") == [(1,)]


def test_another_password_later_changes_nothing(sandbox):
    first, second = new_password(), new_password()
    wait_ready(sandbox.start(env={"POSTGRES_PASSWORD": first}))
    sandbox.remove(sandbox.containers[0])
    container = sandbox.start(env={"POSTGRES_PASSWORD": second}, publish=True)
    wait_ready(container)
    wait_log(container, "POSTGRES_PASSWORD is not the one the database was made with")
    assert query(client(sandbox, "postgres", first, "postgres"), "SELECT 1") == [(1,)]
    # and none at all is fine, too
    sandbox.remove(container)
    wait_ready(sandbox.start())


def test_arguments_are_settings(sandbox):
    container = sandbox.start(env={"POSTGRES_PASSWORD": new_password()},
                              command=["postgres", "-c", "work_mem=11MB", "-N", "33"])
    wait_ready(container)
    assert psql(container, "SHOW work_mem") == "11MB" and psql(container, "SHOW max_connections") == "33"
    docker("run", "--rm", "-e", f"POSTGRES_PASSWORD={new_password()}", IMAGE, "-c", "wrok_mem").fails(
        "name=value", code=1)


def test_confined_as_far_as_it_goes(sandbox):
    container = sandbox.start("--read-only", "--tmpfs", "/tmp", "--tmpfs", "/pgduet/run",
                              "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
                              env={"POSTGRES_PASSWORD": new_password()})
    wait_ready(container)


def test_memory_follows_the_limit(sandbox):
    container = sandbox.start("--memory", "1g", env={"POSTGRES_PASSWORD": new_password()})
    wait_ready(container)
    assert psql(container, "SHOW shared_buffers") == "256MB"


@pytest.mark.parametrize("sig", ["SIGTERM", "SIGINT"])
def test_stops_fast(sandbox, sig):
    """Though a client is connected."""
    password = new_password()
    container = sandbox.start(env={"POSTGRES_PASSWORD": password}, publish=True)
    wait_ready(container)
    query(client(sandbox, "postgres", password, "postgres"), "SELECT 1")
    docker("kill", "--signal", sig, container).ok()
    wait_until(lambda: not is_running(container), "the container to end")
    assert inspect(container, "{{.State.ExitCode}}") == "0"
    assert "received fast shutdown request" in docker("logs", container).text


def test_a_program_of_the_image_is_just_run():
    docker("run", "--rm", IMAGE, "psql", "--version").ok().has("psql .PostgreSQL. 17")
    docker("run", "--rm", IMAGE, "nonsense").fails("run nonsense: No such file", code=1)


# -- Bitnami's variables --------------------------------------------------------------------------


def test_restricted_user_and_hidden_superuser(sandbox):
    password, admin = new_password(), new_password()
    env = {"POSTGRESQL_USERNAME": "shop", "POSTGRESQL_PASSWORD": password, "POSTGRESQL_DATABASE": "store",
           "POSTGRESQL_POSTGRES_PASSWORD": admin, "POSTGRESQL_MAX_CONNECTIONS": "44", "POSTGRESQL_FSYNC": "off",
           "POSTGRESQL_STATEMENT_TIMEOUT": "30s"}
    container = sandbox.start(env=env, publish=True)
    wait_ready(container)
    wait_log(container, "environment as for Bitnami's image, because POSTGRESQL_")
    wait_log(container, "POSTGRESQL_FSYNC is ignored: fsync is always on")
    connection = client(sandbox, "shop", password, "store")
    assert query(connection, "SELECT rolsuper, rolcreatedb FROM pg_roles WHERE rolname = current_user") == [(False, True)]
    for statement in ("CREATE TABLE public.mine (n int)", "CREATE SCHEMA own", "CREATE DATABASE shadow"):
        query(connection, statement)
    assert query(client(sandbox, "postgres", admin, "store"), "SHOW max_connections") == [("44",)]
    assert query(connection, "SHOW fsync; ") == [("on",)] and query(connection, "SHOW statement_timeout") == [("30s",)]


def test_no_password_here_either(sandbox):
    container = sandbox.start(env={"POSTGRESQL_USERNAME": "shop"})
    assert wait_exit(container) == 1
    assert "POSTGRESQL_PASSWORD is not set" in docker("logs", container).text


def test_empty_password_is_obeyed_and_said(sandbox):
    container = sandbox.start(env={"ALLOW_EMPTY_PASSWORD": "yes"}, publish=True)
    wait_ready(container)
    wait_log(container, "let in without a password")
    assert psql(container, "SELECT count(*) FROM pg_hba_file_rules WHERE 'replication' = ANY(database)"
                           " AND auth_method = 'trust'") == "0"


@pytest.fixture
def master_and_slave(sandbox):
    """As in Bitnami's own Compose file: two containers that know each other by environment alone."""
    network = f"{sandbox.tag}-net"
    docker("network", "create", network).ok()
    secrets = {"POSTGRESQL_PASSWORD": new_password(), "POSTGRESQL_REPLICATION_PASSWORD": new_password(),
               "POSTGRESQL_REPLICATION_USER": "repl_user"}

    def start(role, name, **more):
        env = {**secrets, **more, "POSTGRESQL_REPLICATION_MODE": role}
        if role == "slave":
            env |= {"POSTGRESQL_MASTER_HOST": "master-host", "POSTGRESQL_CLUSTER_APP_NAME": "slave_one"}
        else:
            env |= {"POSTGRESQL_USERNAME": "shop", "POSTGRESQL_DATABASE": "store"}
        return sandbox.start("--network", network, "--network-alias", f"{role}-host", env=env, name=name,
                             volume=sandbox.volume(role), publish=role == "slave")

    yield start
    for container in list(sandbox.containers):
        sandbox.remove(container)
    docker("network", "rm", network)


def test_slave_follows_and_keeps_its_role(sandbox, master_and_slave):
    master, slave = master_and_slave("master", "m"), master_and_slave("slave", "s")
    wait_ready(master)
    wait_ready(slave)
    psql(master, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)", dbname="store")
    wait_until(lambda: psql(slave, "SELECT count(*) FROM t", dbname="store") == "1", "the row on the slave")
    assert psql(master, "SELECT application_name, usename FROM pg_stat_replication") == "slave_one|repl_user"
    # the environment is what it was, and yet it stays a primary after a restart
    docker("stop", master).ok()
    assert psql(slave, "SELECT pg_promote()") == "t"
    wait_until(lambda: docker("exec", slave, "pgduet", "health", "primary").code == 0, "a promoted slave")
    psql(slave, "INSERT INTO t VALUES (2)", dbname="store")
    docker("restart", slave).ok()
    wait_ready(slave)
    assert psql(slave, "SELECT pg_is_in_recovery(), count(*) FROM t", dbname="store") == "f|2"


def test_synchronous_master_and_slave(sandbox, master_and_slave):
    """The role by which the slave connects is made without waiting for the slave's confirmation."""
    master = master_and_slave("master", "m", POSTGRESQL_NUM_SYNCHRONOUS_REPLICAS="1",
                              POSTGRESQL_CLUSTER_APP_NAME="slave_one", POSTGRESQL_SYNCHRONOUS_COMMIT_MODE="on")
    slave = master_and_slave("slave", "s")
    wait_ready(master)
    wait_ready(slave)
    wait_until(lambda: psql(master, "SELECT sync_state FROM pg_stat_replication") == "sync", "a synchronous slave")
    psql(master, "CREATE TABLE t (n int)", dbname="store")


def test_places_ports_and_flags(sandbox):
    env = {"POSTGRESQL_PASSWORD": new_password(), "POSTGRESQL_PORT_NUMBER": "6000",
           "POSTGRESQL_VOLUME_DIR": "/bitnami/postgresql/deeper", "POSTGRESQL_EXTRA_FLAGS": "-c work_mem=9MB -N 41",
           "POSTGRESQL_INITDB_ARGS": "--wal-segsize=4", "POSTGRESQL_ALLOW_REMOTE_CONNECTIONS": "no"}
    container = sandbox.start(env=env)
    wait_ready(container)
    out = docker("exec", container, "psql", "-p", "6000", "-U", "postgres", "-Atc",
                 "SELECT current_setting('work_mem'), current_setting('max_connections'), "
                 "current_setting('data_directory'), current_setting('wal_segment_size'), "
                 "current_setting('listen_addresses')").ok().out
    assert out == "9MB|41|/bitnami/postgresql/deeper/data|4MB|127.0.0.1\n"


def test_tls(sandbox):
    place = sandbox.base / "certs"
    place.mkdir()
    run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=db",
         "-keyout", place / "key", "-out", place / "crt"]).ok()
    (place / "key").chmod(0o600)
    os.chown(place / "key", 1001, 0)
    password = new_password()
    container = sandbox.start("-v", f"{place}:/certs:ro", publish=True, env={
        "POSTGRESQL_PASSWORD": password, "POSTGRESQL_ENABLE_TLS": "yes", "POSTGRESQL_TLS_CERT_FILE": "/certs/crt",
        "POSTGRESQL_TLS_KEY_FILE": "/certs/key"})
    wait_ready(container)
    connection = connect(sandbox.port, "postgres", password, "postgres", sslmode="require")
    assert query(connection, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == [(True,)]


def test_misspelt_setting_of_ours(sandbox):
    container = sandbox.start(env={"POSTGRES_PASSWORD": new_password(), "PGDUET_MEMROY": "1GB"})
    assert wait_exit(container) == 1
    assert "did you mean PGDUET_MEMORY?" in docker("logs", container).text
