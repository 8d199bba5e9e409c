"""What a new cluster begins with: its user, and what the init scripts make."""

import gzip
import lzma
import subprocess

import psycopg2
import pytest

from utils import hold_true, mode, wait_until

PASSWORD = "it's \"me\" $HOME #1"


def with_user(cluster, rights="owner"):
    cluster.edit("pgduet.conf", lambda t: t.replace(
        "[cluster]\n", f"[cluster]\nuser = app\nuser_rights = {rights}\n"
        f"init_scripts = {cluster.base}/scripts\n", 1))
    quoted = PASSWORD.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    cluster.edit(".env", lambda t: t + f'POSTGRES_PASSWORD="{quoted}"\n')
    (cluster.base / "scripts").mkdir()
    (cluster.base / "scripts").chmod(0o755)
    return cluster


@pytest.fixture
def pair_with_user(make_cluster):
    return with_user(make_cluster())


def script(cluster, name, content, executable=False):
    path = cluster.base / "scripts" / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(0o755 if executable else 0o644)


def test_user_owns_the_database_and_may_make_others(pair_with_user):
    cluster = pair_with_user
    cluster.up()
    with cluster.connect(user="app", password=PASSWORD) as conn:
        with conn.cursor() as cursor:
            cursor.execute("CREATE TABLE mine (n int); CREATE SCHEMA own; SELECT current_user")
            assert cursor.fetchone() == ("app",)
    assert cluster.sql("SELECT rolcreatedb, rolsuper, rolreplication FROM pg_roles"
                       " WHERE rolname = 'app'") == [(True, False, False)]
    assert cluster.value("SELECT pg_get_userbyid(datdba) FROM pg_database"
                         " WHERE datname = 'myapp'") == "app"
    cluster.wait_same("SELECT relname FROM pg_class WHERE relname = 'mine'")
    with pytest.raises(psycopg2.OperationalError):
        cluster.connect(user="app", password="another")


def test_replicas_find_role_and_slot_at_once(pair_with_user):
    """Both are there before the first server listens, so that no log begins with a FATAL."""
    cluster = pair_with_user
    cluster.up()
    for node in cluster.names:
        log = cluster.node_log(node) + cluster.server_log(node)
        assert not [line for line in log.splitlines() if "ERROR" in line or "FATAL:  password" in line], log
    assert cluster.sql("SELECT slot_name, active FROM pg_replication_slots") == [("pg2", True)]
    assert cluster.sql("SELECT slot_name FROM pg_replication_slots", "pg2") == []


def test_synchronous_from_the_first_start(make_cluster):
    """Role and slot of the replica are made without waiting for the replica, which needs them to come."""
    cluster = make_cluster()
    cluster.edit("config/primary.conf", lambda t: t + "synchronous_standby_names = 'pg2'\n")
    cluster.up()
    wait_until(lambda: cluster.value("SELECT sync_state FROM pg_stat_replication") == "sync", "a synchronous replica")
    cluster.sql("CREATE TABLE t (n int)")
    # and with another replication password, too
    old = cluster.secrets()["POSTGRES_REPLICATION_PASSWORD"]
    cluster.down()
    cluster.edit(".env", lambda t: t.replace(old, "another-" + old))
    cluster.up()
    cluster.wait_streaming("pg2")


def test_user_as_superuser(make_cluster):
    cluster = with_user(make_cluster(nodes=1), "superuser")
    cluster.up()
    assert cluster.value("SELECT rolsuper FROM pg_roles WHERE rolname = 'app'")


def test_scripts_of_every_kind_run_once_and_in_order(pair_with_user):
    cluster = pair_with_user
    script(cluster, "10-table.sql", "CREATE TABLE steps (n serial, name text, who text"
                                    " DEFAULT current_user);")
    script(cluster, "20-gz.sql.gz", gzip.compress(b"INSERT INTO steps (name) VALUES ('gz');"))
    script(cluster, "30-xz.sql.xz", lzma.compress(b"INSERT INTO steps (name) VALUES ('xz');"))
    script(cluster, "35-zst.sql.zst", subprocess.run(
        ["zstd", "-c"], input=b"INSERT INTO steps (name) VALUES ('zst');", capture_output=True,
        check=True).stdout)
    script(cluster, "37-environment.sh", "[ \"$POSTGRESQL_PASSWORD\" = \"$PGPASSWORD\" ]\n"
                                         "[ \"$POSTGRESQL_USERNAME $POSTGRESQL_DATABASE\" = 'app myapp' ]\n"
                                         "test -e \"$PGDATA/PG_VERSION\"\n"
                                         "echo 'SELECT 1' | docker_process_sql --dbname myapp\n")
    script(cluster, "40-sourced.sh", "psql -qc \"INSERT INTO steps (name) VALUES ('sourced "
                                     "$POSTGRES_USER $POSTGRES_DB')\"\n")
    script(cluster, "50-run.sh", "#!/bin/sh -e\n[ \"$POSTGRES_PASSWORD\" = \"$PGPASSWORD\" ]\n"
                                 "psql -qc \"INSERT INTO steps (name) VALUES ('run')\"\n", True)
    script(cluster, "60-notes.txt", "not a script")
    cluster.up()
    steps = [("gz", "app"), ("xz", "app"), ("zst", "app"),
             ("sourced app myapp", "app"), ("run", "app")]
    assert cluster.sql("SELECT name, who FROM steps ORDER BY n") == steps
    wait_until(lambda: cluster.sql("SELECT name, who FROM steps ORDER BY n", "pg2") == steps,
               "the replica to have it all")
    assert "ignoring" in cluster.node_log("pg1") and "60-notes.txt" in cluster.node_log("pg1")
    cluster.down()
    cluster.up()
    assert cluster.value("SELECT count(*) FROM steps") == len(steps)
    assert not [n for n in cluster.names if PASSWORD in cluster.node_log(n)]


@pytest.mark.parametrize("name, text, said", [
    ("20-bad.sql", "SELECT 1;\nSELECT nonsense;\nCREATE TABLE never ();", "nonsense"),
    ("20-bad.sh", "echo before\nfalse\npsql -c 'CREATE TABLE never ()'\n", "20-bad.sh"),
    ("20-bad.sql.gz", "this is not gzip", "20-bad.sql.gz"),
])
def test_a_failing_script_stops_it_and_is_shown(pair_with_user, name, text, said):
    cluster = pair_with_user
    script(cluster, "10-good.sql", "CREATE TABLE before_it (n int);")
    script(cluster, name, text)
    cluster.start("up", "--timeout", "60")
    wait_until(lambda: cluster.beacon("pg1").get("state") == "failed", "pg1 to give up")
    assert name in cluster.beacon("pg1")["error"]
    assert said in cluster.node_log("pg1")
    hold_true(lambda: cluster.beacon("pg1").get("state") == "failed"
              and cluster.beacon("pg2").get("state") == "starting", "no further try", 1.5)
    assert cluster.node_log("pg1").count("running ") == 2
    assert not cluster.data("pg1").exists() and not cluster.data("pg2").exists()
    # mended and started again, everything is made from the beginning
    cluster.down()
    script(cluster, name, b"" if name.endswith(".sh") else
           gzip.compress(b"SELECT 1;") if name.endswith(".gz") else "SELECT 1;")
    cluster.up()
    assert cluster.value("SELECT count(*) FROM before_it") == 0
    cluster.assert_healthy()


def test_scripts_that_cannot_be_read(pair_with_user):
    cluster = pair_with_user
    (cluster.base / "scripts").chmod(0o000)
    cluster.start("up", "--timeout", "30")
    wait_until(lambda: "init scripts" in cluster.beacon("pg1").get("error", ""), "the reason")


def test_killed_while_a_script_runs(pair_with_user):
    """The next attempt begins anew, so the script never meets its own half-done work."""
    cluster = pair_with_user
    flag = cluster.base / "go"
    script(cluster, "10.sh", "psql -qc 'CREATE TABLE once (n int)'\n"
                             f"while [ ! -e {flag} ]; do sleep 0.05; done\n")
    cluster.start("up", "--timeout", "60")
    wait_until(lambda: "init script 10.sh" in str(cluster.beacon("pg1")), "the script to run")
    cluster.kill_all()
    flag.touch()
    cluster.up()
    assert cluster.value("SELECT count(*) FROM once") == 0
    cluster.assert_healthy()


def test_nobody_takes_the_first_start_for_a_server(pair_with_user):
    """Engines and clients that ask meanwhile would begin before the cluster is complete."""
    cluster = pair_with_user
    flag = cluster.base / "go"
    script(cluster, "10.sh", f"while [ ! -e {flag} ]; do sleep 0.05; done\n")
    up = cluster.start("up", "--timeout", "60")
    wait_until(lambda: "init script 10.sh" in str(cluster.beacon("pg1")), "the script to run")
    assert cluster.run("health", "alive", "pg1").code == 0
    assert cluster.run("health", "ready", "pg1").code == 1
    with pytest.raises(psycopg2.OperationalError, match="No such file|refused"):
        psycopg2.connect(host=str(cluster.path("run")), port=cluster.port("pg1"), user="postgres",
                         password=cluster.admin_password, dbname="postgres")
    flag.touch()
    up.wait().ok()
    assert cluster.run("health", "ready", "pg1").ok()


@pytest.mark.slow
def test_a_long_script_is_left_alone(pair_with_user):
    """Its server is no leftover of another one, though the guard looks for such every two seconds."""
    cluster = pair_with_user
    flag = cluster.base / "go"
    script(cluster, "10.sh", f"while [ ! -e {flag} ]; do sleep 0.05; done\n"
                             "psql -qc 'CREATE TABLE after_it (n int)'\n")
    up = cluster.start("up", "--timeout", "60")
    wait_until(lambda: "init script 10.sh" in str(cluster.beacon("pg1")), "the script to run")
    hold_true(lambda: "init script 10.sh" in str(cluster.beacon("pg1")), "the script to go on", 4.5)
    flag.touch()
    up.wait().ok()
    assert cluster.value("SELECT count(*) FROM after_it") == 0
    assert cluster.node_log("pg1").count("running ") == 2, "one script, one server"


def test_local_logins_by_operating_system_user(make_cluster):
    cluster = make_cluster(nodes=1)
    cluster.edit("pgduet.conf", lambda t: t.replace("[postgres]\n",
                                                    "[postgres]\nlocal_auth = peer\n", 1))
    cluster.up()
    assert mode(cluster.data("pg1") / "pg_ident.conf") == 0o600
    local = {"host": str(cluster.path("run")), "port": cluster.port("pg1"), "dbname": "postgres",
             "passfile": "/dev/null"}
    psycopg2.connect(user="postgres", **local).close()
    # before PostgreSQL 16 the map names each role, from there on the word "all" stands for them
    mapped_by_name = int(cluster.show("server_version_num")) < 160000
    with pytest.raises(psycopg2.OperationalError,
                       match="Peer authentication failed" if mapped_by_name else "does not exist"):
        psycopg2.connect(user="nobody_knows", password="x", **local)
    # by TCP the password counts as ever, and pgduet's own logins need none
    with pytest.raises(psycopg2.OperationalError, match="password"):
        cluster.connect(password="wrong")
    cluster.sql("ALTER ROLE postgres PASSWORD 'another'", user="postgres")
    cluster.run("restart").ok()
    cluster.run("user", "create", "bob").ok()


def test_names_of_log_files_and_replication_user(make_cluster):
    cluster = make_cluster()
    cluster.edit("pgduet.conf", lambda t: t.replace(
        "[cluster]\n", "[cluster]\nreplication_user = repl_user\n", 1).replace(
        "[node pg2]\n", "[node pg2]\nlog_name = postgresql-slave\n"))
    cluster.up()
    assert [p.name for p in cluster.path("logs/pg2").glob("postgresql-slave-2*.log")]
    assert not list(cluster.path("logs/pg2").glob("postgresql-2*.log"))
    assert cluster.value("SELECT usename FROM pg_stat_replication") == "repl_user"
    assert "database system" in cluster.run("logs", "pg2").ok().out


def test_initdb_arguments(make_cluster):
    cluster = make_cluster(nodes=1)
    cluster.edit("pgduet.conf", lambda t: t.replace(
        "[postgres]\n", "[postgres]\ninitdb_args = --wal-segsize=4 --locale='C'\n", 1))
    cluster.up()
    assert cluster.show("wal_segment_size") == "4MB"
    assert cluster.value("SELECT datcollate FROM pg_database WHERE datname = 'postgres'") == "C"
    assert cluster.show("data_checksums") == "on"


def test_initdb_arguments_that_do_not_end(make_cluster):
    cluster = make_cluster(nodes=1)
    cluster.edit("pgduet.conf", lambda t: t.replace(
        "[postgres]\n", "[postgres]\ninitdb_args = --locale='C\n", 1))
    cluster.run("up", "--timeout", "5").fails(1, "initdb_args")


# -- following a primary outside ------------------------------------------------------------------


@pytest.fixture
def follower(make_cluster):
    """A cluster of one node that follows the primary of another cluster."""
    upstream = make_cluster(nodes=1)
    upstream.up()
    cluster = make_cluster(nodes=1)
    cluster.edit("pgduet.conf", lambda t: t.replace(
        "[cluster]\n", f"[cluster]\nupstream = 127.0.0.1:{upstream.port('pg1')}\n", 1))
    cluster.edit(".env", lambda t: upstream.path(".env").read_text())
    return upstream, cluster


def test_follows_an_upstream(follower):
    upstream, cluster = follower
    upstream.sql("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
    cluster.start("agent", "pg1")
    wait_until(lambda: cluster.answers("pg1"), "the follower to answer")
    assert cluster.value("SELECT pg_is_in_recovery()")
    upstream.sql("INSERT INTO t VALUES (2)")
    wait_until(lambda: cluster.value("SELECT count(*) FROM t") == 2, "the row to arrive")
    assert cluster.beacon("pg1")["role"] == "replica"
    # it restarts as what it is, and an upstream that is gone keeps it from nothing
    upstream.down()
    cluster.run("restart").ok()
    wait_until(lambda: cluster.answers("pg1"), "the follower to answer again")
    assert cluster.value("SELECT count(*) FROM t") == 2


def test_promoted_by_hand_it_stays_a_primary(follower):
    """Its role lives in the data directory, not in the configuration (as with Bitnami's image)."""
    upstream, cluster = follower
    agent = cluster.start("agent", "pg1")
    wait_until(lambda: cluster.answers("pg1"), "the follower to answer")
    upstream.down()
    assert cluster.value("SELECT pg_promote()")
    wait_until(lambda: cluster.leader().get("holder") == "pg1", "it to lead")
    wait_until(lambda: cluster.beacon("pg1").get("role") == "primary"
               and cluster.beacon("pg1").get("ready"), "it to serve as primary")
    cluster.sql("CREATE TABLE here (n int)")
    agent.process.terminate()
    agent.wait(20).ok()
    cluster.start("agent", "pg1")
    wait_until(lambda: cluster.beacon("pg1").get("ready"), "it to serve again")
    assert not cluster.value("SELECT pg_is_in_recovery()")
    cluster.sql("INSERT INTO here VALUES (1)")


def test_upstream_that_cannot_be_used(make_cluster):
    cluster = make_cluster(nodes=1)
    cluster.edit("pgduet.conf", lambda t: t.replace("[cluster]\n", "[cluster]\nupstream = nowhere\n"))
    cluster.run("up").fails(1, "HOST:PORT")
    pair = make_cluster(nodes=2)
    pair.edit("pgduet.conf", lambda t: t.replace("[cluster]\n", "[cluster]\nupstream = a:1\n"))
    pair.run("up").fails(1, "one node")
    pair.edit("pgduet.conf", lambda t: t.replace("upstream = a:1\n", "this_node = pg9\n"))
    pair.run("up").fails(1, "pg9")
