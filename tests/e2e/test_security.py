"""PostgreSQL as production wants it, asked of running servers; and where the secrets are not."""

import os
import re
from datetime import datetime

import psycopg2
import pytest

from utils import REPLICATOR, Sampler, environment, mode, server_tool, wait_until


# -- authentication -------------------------------------------------------------------------------


def test_no_trust_anywhere(pair):
    for node in pair.names:
        rules = pair.sql("SELECT type, auth_method, error FROM pg_hba_file_rules", node)
        assert rules and {error for _, _, error in rules} == {None}
        assert {method for _, method, _ in rules} == {"scram-sha-256"}


def test_passwords_are_scram_everywhere(pair):
    assert pair.show("password_encryption") == "scram-sha-256"
    stored = pair.sql("SELECT rolname, rolpassword FROM pg_authid WHERE rolcanlogin")
    for name, verifier in stored:
        assert verifier and verifier.startswith("SCRAM-SHA-256$"), name
    assert {name for name, _ in stored} >= {"postgres", REPLICATOR}


@pytest.mark.parametrize("user", ["postgres", REPLICATOR, "nosuchuser"])
@pytest.mark.parametrize("host", ["127.0.0.1", "socket"])
def test_wrong_password_is_refused(pair, user, host):
    place = pair.show("unix_socket_directories") if host == "socket" else host
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(host=place, port=pair.first_port, user=user, password="wrong",
                         dbname="postgres")
    with pytest.raises(psycopg2.OperationalError, match="no password|password authentication"):
        psycopg2.connect(host=place, port=pair.first_port, user=user, dbname="postgres",
                         passfile="/dev/null")


def test_wrong_password_in_env_is_a_clear_error(fresh_single):
    good = fresh_single.path(".env").read_text()
    fresh_single.write(".env", good.replace(fresh_single.admin_password, "NotThePassword"))
    result = fresh_single.run("user", "list").fails(1, "password")
    assert len(result.err.strip().splitlines()) == 1 and "NotThePassword" not in result.err
    fresh_single.write(".env", good)
    fresh_single.run("user", "list").ok()


def test_wrong_replication_password_is_told_and_mended(fresh_pair):
    good = fresh_pair.path(".env").read_text()
    right = fresh_pair.secrets()["POSTGRES_REPLICATION_PASSWORD"]
    fresh_pair.sql(f"ALTER ROLE {REPLICATOR} PASSWORD 'SomethingElse'")
    fresh_pair.down()
    fresh_pair.up()  # the role is mended from .env
    fresh_pair.assert_healthy()
    assert right in good and fresh_pair.path(".env").read_text() == good


# -- the replication role --------------------------------------------------------------------------


def test_replication_role_has_no_more_rights_than_it_needs(pair):
    rights = pair.sql("SELECT rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin,"
                      " rolreplication, rolbypassrls FROM pg_roles WHERE rolname = %s",
                      params=(REPLICATOR,))[0]
    superuser, _, createrole, createdb, login, replication, bypass = rights
    assert (superuser, createrole, createdb, bypass) == (False,) * 4
    assert login and replication
    assert pair.sql("SELECT roleid::regrole FROM pg_auth_members WHERE member = %s::regrole",
                    params=(REPLICATOR,)) == []


@pytest.mark.parametrize("function", [
    "pg_ls_dir(text, boolean, boolean)", "pg_stat_file(text, boolean)", "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
])
def test_replication_role_may_call_what_pg_rewind_needs(pair, function):
    for database in ("postgres",):
        assert pair.value(f"SELECT has_function_privilege('{REPLICATOR}', '{function}', 'EXECUTE')",
                          dbname=database) is True


def test_replication_role_cannot_enter_the_applications_database(pair):
    password = pair.secrets()["POSTGRES_REPLICATION_PASSWORD"]
    pair.sql("CREATE TABLE IF NOT EXISTS private_rows (x int)")
    with pytest.raises(psycopg2.Error):
        pair.sql("SELECT * FROM private_rows", user=REPLICATOR, password=password)


# -- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting,value", [
    ("data_checksums", "on"), ("fsync", "on"), ("full_page_writes", "on"), ("hot_standby", "on"),
    ("wal_level", "replica"), ("server_encoding", "UTF8"), ("logging_collector", "on"),
    ("log_rotation_age", "1d"), ("log_rotation_size", "0"), ("log_lock_waits", "on"),
    ("log_checkpoints", "on"), ("log_statement", "ddl"), ("log_min_duration_statement", "1s"),
    ("log_temp_files", "10MB"), ("log_autovacuum_min_duration", "1min"),
    ("log_filename", "postgresql-%Y-%m-%d.log"), ("log_line_prefix", "%m [%p] %q%u@%d %a "),
    ("random_page_cost", "1.1"), ("idle_in_transaction_session_timeout", "5min"),
    ("huge_pages", "off"),
])
def test_setting(pair, setting, value):
    for node in pair.names:
        assert pair.show(setting, node) == value


def in_base_units(cluster, setting):
    return int(cluster.value(f"SELECT setting FROM pg_settings WHERE name = '{setting}'"))


def test_bounded_settings(pair):
    assert in_base_units(pair, "max_slot_wal_keep_size") > 0, "a dead replica fills the disk"
    assert 1 <= in_base_units(pair, "wal_retrieve_retry_interval") <= 200
    assert in_base_units(pair, "effective_io_concurrency") >= 16
    assert pair.show("listen_addresses") == "127.0.0.1", "nobody from outside unless told"


def test_no_restart_is_pending_and_no_setting_is_broken(pair):
    for node in pair.names:
        assert pair.sql("SELECT name FROM pg_settings WHERE pending_restart", node) == []
        assert pair.sql("SELECT name, error FROM pg_file_settings WHERE error IS NOT NULL",
                        node) == []


def test_a_physical_slot_for_the_replica(pair):
    slots = pair.sql("SELECT slot_name, slot_type, active, temporary, wal_status"
                     " FROM pg_replication_slots")
    assert slots == [("pg2", "physical", True, False, "reserved")]
    assert pair.show("primary_slot_name", "pg2") == "pg2"


def test_replica_uses_a_passfile_and_the_replication_role(pair):
    conninfo = pair.show("primary_conninfo", "pg2")
    assert f"user='{REPLICATOR}'" in conninfo and "password=" not in conninfo
    passfile = re.search(r"passfile='?([^' ]+)", conninfo).group(1)
    assert mode(passfile) == 0o600
    assert pair.secrets()["POSTGRES_REPLICATION_PASSWORD"] in open(passfile).read()
    sender = pair.sql("SELECT usename, application_name FROM pg_stat_replication")
    assert sender == [(REPLICATOR, "pg2")]


def test_locale_sorts_the_same_everywhere(pair):
    collation = pair.sql("SELECT datcollate, datctype FROM pg_database WHERE datname = 'myapp'")
    assert collation == [("C.UTF-8", "C.UTF-8")]
    assert pair.value("SELECT lower('ÄÖÜ')") == "äöü"


def test_checksums_off_means_wal_log_hints(fresh_pair):
    assert fresh_pair.show("data_checksums") == "on"
    fresh_pair.down()
    for node in fresh_pair.names:
        done = server_tool(fresh_pair, "pg_checksums", "--disable", "-D", fresh_pair.data(node))
        assert done.returncode == 0, done.stderr
    fresh_pair.up()
    for node in fresh_pair.names:
        assert fresh_pair.show("data_checksums", node) == "off"
        assert fresh_pair.show("wal_log_hints", node) == "on"
    fresh_pair.assert_healthy()


# -- logs -----------------------------------------------------------------------------------------


def test_daily_log_files(pair):
    for node in pair.names:
        files = [p.name for p in pair.path("logs", node).glob("postgresql*")]
        today = datetime.now().astimezone().strftime("%Y-%m-%d")
        assert files and all(re.fullmatch(r"postgresql-\d{4}-\d\d-\d\d\.log", f) for f in files)
        assert any(today[:7] in f for f in files)


def test_warnings_reach_the_agents_stderr(pair):
    pair.sql("DO $$ BEGIN RAISE WARNING 'marker-warning'; END $$")
    wait_until(lambda: "marker-warning" in pair.node_log("pg1"), "the warning in pgduet.log")
    pair.sql("DO $$ BEGIN RAISE LOG 'marker-log'; END $$")
    wait_until(lambda: "marker-log" in pair.server_log("pg1"), "the line in the server's log")
    assert "marker-log" not in pair.node_log("pg1"), "LOG is not worse than WARNING"


def test_warnings_reach_the_terminal_of_a_foreground_agent(make_cluster):
    cluster = make_cluster(nodes=1)
    agent = cluster.start("agent", "pg1")
    wait_until(lambda: cluster.answers("pg1"), "the server to answer")
    cluster.sql("DO $$ BEGIN RAISE WARNING 'marker-terminal'; END $$")
    wait_until(lambda: "marker-terminal" in agent.err, "the warning on stderr")


def test_old_log_files_are_removed(cluster):
    logs = cluster.path("logs", "pg1")
    logs.mkdir(parents=True, exist_ok=True)
    old, mine, recent = (logs / n for n in ("postgresql-2001-02-03.log", "thesis.txt",
                                            datetime.now().strftime("postgresql-%Y-%m-%d.log")))
    for path in (old, mine, recent):
        path.write_text("old\n")
        cluster.give_to_server_user(logs, path)
    for path in (old, mine):
        os.utime(path, (981158400, 981158400))
    cluster.up()
    wait_until(lambda: not old.exists(), "the file of 2001 to be removed")
    assert mine.exists() and recent.exists()


# -- secrets --------------------------------------------------------------------------------------


def files_with(cluster, secret):
    """Files of the deployment that hold the secret, server's data included."""
    found = []
    for path in cluster.dir.rglob("*"):
        if path.is_file() and not path.is_symlink() and secret.encode() in path.read_bytes():
            found.append(path)
    return found


def test_secrets_never_show_while_it_starts_and_clones(cluster):
    secrets = list(cluster.secrets().values())
    with Sampler(*secrets) as sampler:
        cluster.up()
        cluster.run("status").ok()
        cluster.run("psql", "--", "-c", "SELECT 1").ok()
        cluster.down()
        os.rename(cluster.data("pg2"), cluster.base / "pg2.away")
        cluster.up()  # by base backup now
        assert sampler.looks > 10
    assert not sampler.hits
    cluster.down()
    for secret in secrets:
        for path in files_with(cluster, secret):
            assert path.name == ".env" or path.name.endswith("pgpass"), path
            assert mode(path) == 0o600, path


def test_secrets_are_not_in_environments_of_servers(pair):
    secrets = [s.encode() for s in pair.secrets().values()]
    for pid in pair.processes():
        assert not [s for s in secrets if s in environment(pid)], pid


def test_data_is_private(pair):
    for node in pair.names:
        assert mode(pair.data(node)) == 0o700
    sockets = pair.show("unix_socket_directories")
    assert sockets == "" or not mode(sockets) & 0o002
