"""The scripts of the folder: users, schemas and secrets, from anywhere and with any node down."""

import os
import shutil
import stat
import threading

import psycopg2
import pytest

from utils import FOLDER, MASTER, REPLICA, new_password, query, run, wait_until

SCRIPTS = sorted(path.name for path in (FOLDER / "scripts").iterdir())


def user_names(pair):
    return [user["name"] for user in pair.script("list-users.sh", "--json").ok().json["users"]]


def test_scripts_are_executable_and_clean():
    for name in SCRIPTS:
        assert (FOLDER / "scripts" / name).stat().st_mode & stat.S_IXUSR, f"{name} is not executable"
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck on this machine")
    run(["shellcheck", "-x", *(f"scripts/{name}" for name in SCRIPTS)], cwd=FOLDER).ok()


def test_user_in_public(pair):
    password = new_password()
    pair.script("create-user.sh", "alice", password).ok().has("created user 'alice'")
    connection = pair.connect(MASTER, "alice", password)
    query(connection, "CREATE TABLE public.of_alice (id int)")
    pair.script("delete-user.sh", "alice").ok().has("deleted user 'alice'")
    assert pair.psql(MASTER, "SELECT tableowner FROM pg_tables WHERE tablename = 'of_alice'", dbname="myapp") == \
        "postgres"
    pair.psql(MASTER, "DROP TABLE of_alice", dbname="myapp")
    with pytest.raises(psycopg2.OperationalError):
        pair.connect(MASTER, "alice", password)


def test_further_schema_keeps_the_password(pair):
    password = new_password()
    pair.script("create-user.sh", "bob", password, "bob").ok()
    pair.script("create-user.sh", "bob", new_password(), "bob_shadow").ok().has(
        "added schema 'bob_shadow'", "given password was ignored")
    connection = pair.connect(MASTER, "bob", password)
    assert query(connection, "SHOW search_path") == [("bob, bob_shadow",)]
    query(connection, "CREATE TABLE t (id int); CREATE TABLE bob_shadow.t (id int)")
    replica = wait_until(lambda: pair.connect(REPLICA, "bob", password), "the user on the replica")
    wait_until(lambda: query(replica, "SELECT count(*) FROM bob_shadow.t") == [(0,)], "the table on the replica")
    pair.script("delete-user.sh", "bob", "--drop-schema").ok()
    assert pair.psql(MASTER, "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'bob%'", dbname="myapp") == "0"


def test_schema_of_one_user_is_closed_to_others(pair):
    for name in ("carol", "dave"):
        pair.script("create-user.sh", name, f"{name}-{'x' * 20}", name).ok()
    query(pair.connect(MASTER, "carol", f"carol-{'x' * 20}"), "CREATE TABLE private (id int)")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        query(pair.connect(MASTER, "dave", f"dave-{'x' * 20}"), "SELECT * FROM carol.private")
    for name in ("carol", "dave"):
        pair.script("delete-user.sh", name, "--drop-schema").ok()


def test_existing_user_stays_as_it_is(pair):
    pair.script("create-user.sh", "app_user", new_password()).ok().has("app_user' exist", "password")
    assert query(pair.app(MASTER), "SELECT 1") == [(1,)]


def test_password_from_standard_input(pair):
    password = new_password()
    pair.script("create-user.sh", "erin", "-", "erin", "--createdb", input=password + "\n").ok()
    connection = pair.connect(MASTER, "erin", password)
    query(connection, "CREATE DATABASE of_erin")
    query(connection, "DROP DATABASE of_erin")
    pair.script("delete-user.sh", "erin", "--drop-schema").ok()


def test_unusual_names_and_passwords(pair):
    name, password = "O'Neil \"x\"; DROP", "p'a\\s$s`w\"o rd%#&/+=ü"
    pair.script("create-user.sh", name, password).ok()
    assert query(pair.connect(MASTER, name, password), "SELECT current_user") == [(name,)]
    assert name in user_names(pair)
    pair.script("delete-user.sh", name).ok()


def test_password_is_shown_nowhere(pair):
    """Neither in the output, nor in the command line of another program than the script itself."""
    password = new_password()
    seen = []
    done = threading.Event()

    def watch():
        while not done.is_set():
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try:
                    with open(f"/proc/{pid}/cmdline", "rb") as f:
                        words = f.read()
                except OSError:
                    continue
                if password.encode() in words and b"create-user.sh" not in words:
                    seen.append(words.split(b"\0")[0])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = pair.script("create-user.sh", "frank", password).ok()
    finally:
        done.set()
        watcher.join()
    assert not seen
    assert password not in result.text
    assert password not in pair.logs()
    assert password not in run("cat logs/*/*", cwd=pair.dir, shell=True).ok().out
    pair.script("delete-user.sh", "frank").ok()


@pytest.mark.parametrize("arguments", [(), ("zoe",), ("zoe", "a", "b", "c"), ("zoe", "a", "--admin")])
def test_usage(pair, arguments):
    pair.script("create-user.sh", *arguments).fails("usage: create-user.sh USER PASSWORD", code=2)
    assert "zoe" not in user_names(pair)


def test_delete_of_a_stranger(pair):
    pair.script("delete-user.sh", "nobody_here").fails("user 'nobody_here'", code=1)
    pair.script("delete-user.sh", "postgres").fails("superuser", code=1)


def test_check_shows_everything(pair):
    result = pair.script("check-replication.sh").ok()
    result.has(r"postgres-master +primary +running", r"postgres-replica +replica +running", "streaming",
               r"postgres_replica *\| t *\| reserved", r"PGDUET OK - .*1 of 1 replicas")


def test_with_one_node_down(make_deployment):
    """Both ways round; and with none, one clear sentence and exit code 3."""
    d = make_deployment().up()
    d.wait_streams()
    password = new_password()

    d.compose("stop", "-t", "20", REPLICA).ok()
    d.script("create-user.sh", "gina", password, "gina").ok()
    assert "gina" in user_names(d)
    d.script("check-replication.sh").fails("PGDUET WARNING", REPLICA, code=1)

    d.compose("start", REPLICA).ok()
    d.wait_streams()
    d.compose("stop", "-t", "20", MASTER).ok()
    d.script("check-replication.sh").fails("PGDUET CRITICAL", code=2)
    d.script("create-user.sh", "hugo", new_password()).fails("pgduet: .*primary", code=1)

    d.compose("stop", "-t", "20", REPLICA).ok()
    for name in ("check-replication.sh", "list-users.sh"):
        d.script(name).fails("no node of this deployment runs; hint: docker compose up -d", code=3)
