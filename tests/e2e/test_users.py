"""`user create|list|password|delete`, against a server that is asked afterwards."""

import re

import psycopg2
import pytest

from utils import Sampler

ODD_NAMES = ["o'brien", "with space", 'dou"ble', "back\\slash", "select", "user", "юзер",
             "Ünï cödé", "MixedCase", "a'b\"c\\d $1 %s", "semi;colon--", "x" * 63, "-dash"]


def create(cluster, name, *args, **options):
    return cluster.run("user", "create", *args, "--", name, **options)


def role(cluster, name):
    rows = cluster.sql("SELECT rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolreplication,"
                       " rolbypassrls FROM pg_roles WHERE rolname = %s", params=(name,))
    return rows[0] if rows else None


def logs_in(cluster, user, password, dbname="myapp"):
    try:
        return cluster.sql("SELECT current_user", user=user, password=password,
                           dbname=dbname) == [(user,)]
    except psycopg2.OperationalError as e:
        assert "password authentication failed" in str(e) or "not permitted to log in" in str(e), e
        return False


def drop(cluster, *names):
    for name in names:
        cluster.run("user", "delete", "--drop-schema", "--", name).ok()


# -- create ---------------------------------------------------------------------------------------


def test_plain_user_lives_in_public(pair):
    pair.run("user", "create", "plain", "pw-plain").ok()
    assert role(pair, "plain") == (True, False, False, False, False, False)
    conn = pair.connect(user="plain", password="pw-plain")
    with conn.cursor() as cursor:
        cursor.execute("CREATE TABLE of_plain (x int)")
        cursor.execute("INSERT INTO of_plain VALUES (1)")
        cursor.execute("SELECT schemaname FROM pg_tables WHERE tablename = 'of_plain'")
        assert cursor.fetchall() == [("public",)]
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute("CREATE DATABASE shadow")
    conn.close()
    drop(pair, "plain")


def test_user_with_a_schema_owns_it_and_works_in_it(pair):
    pair.run("user", "create", "shop", "pw-shop", "--schema", "shop").ok()
    conn = pair.connect(user="shop", password="pw-shop")
    with conn.cursor() as cursor:
        cursor.execute("SHOW search_path")
        assert cursor.fetchone()[0].split(",")[0].strip(' "') == "shop"
        cursor.execute("CREATE TABLE mine (x int)")
        cursor.execute("SELECT schemaname FROM pg_tables WHERE tablename = 'mine'")
        assert cursor.fetchall() == [("shop",)]
    conn.close()
    owner = "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'shop'"
    assert pair.value(owner) == "shop"
    drop(pair, "shop")


def test_users_of_schemas_cannot_see_each_other(pair):
    for name in ("one", "two"):
        pair.run("user", "create", name, f"pw-{name}", "--schema", name).ok()
    pair.sql("CREATE TABLE secret_table (x int)", user="one", password="pw-one")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        pair.sql("SELECT * FROM one.secret_table", user="two", password="pw-two")
    drop(pair, "one", "two")


def test_the_replica_knows_the_user(pair):
    pair.run("user", "create", "reader", "pw-reader", "--schema", "reader").ok()
    pair.sql("CREATE TABLE t AS SELECT 5 AS x", user="reader", password="pw-reader")
    pair.wait_same("SELECT x FROM reader.t")
    assert pair.value("SELECT x FROM t", "pg2", user="reader", password="pw-reader") == 5
    drop(pair, "reader")


def test_createdb_only_when_asked(pair):
    pair.run("user", "create", "shadow", "pw-shadow", "--createdb").ok()
    assert role(pair, "shadow")[2] is True
    pair.sql("CREATE DATABASE made_by_shadow", user="shadow", password="pw-shadow")
    pair.sql("DROP DATABASE made_by_shadow", user="shadow", password="pw-shadow")
    drop(pair, "shadow")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_work(pair, name):
    create(pair, name, "--password-stdin", input="pässwörd 'x' \"y\"\n").ok()
    assert logs_in(pair, name, "pässwörd 'x' \"y\"")
    assert name in {u["name"] for u in users(pair)}
    pair.run("user", "password", "--password-stdin", "--", name, input="next\n").ok()
    assert logs_in(pair, name, "next")
    drop(pair, name)
    assert role(pair, name) is None


@pytest.mark.parametrize("schema", ODD_NAMES[:9])
def test_odd_schemas_work(pair, schema):
    pair.run("user", "create", "odd", "pw-odd", "--schema", schema).ok()
    pair.sql("CREATE TABLE t (x int)", user="odd", password="pw-odd")
    assert pair.sql("SELECT nspname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
                    " WHERE relname = 't'") == [(schema,)]
    drop(pair, "odd")


@pytest.mark.parametrize("name", ["", "x" * 64, "pg_monitor", "pg_mine", "postgres",
                                  "pgduet_replicator", "public", "none"])
def test_impossible_names_are_refused(pair, name):
    count = pair.value("SELECT count(*) FROM pg_roles")
    create(pair, name, "--password-stdin", input="secret-word\n").fails((1, 2))
    assert pair.value("SELECT count(*) FROM pg_roles") == count


@pytest.mark.parametrize("schema", ["", "x" * 64, "pg_mine", "pg_catalog", "information_schema"])
def test_impossible_schemas_make_no_user(pair, schema):
    pair.run("user", "create", "nobody_yet", "pw", "--schema", schema).fails((1, 2))
    assert role(pair, "nobody_yet") is None


# -- passwords ------------------------------------------------------------------------------------


def test_generated_password_is_shown_once_and_works(pair):
    result = pair.run("user", "create", "lucky").ok()
    candidates = re.findall(r"[A-Za-z0-9]{20,}", result.out)
    assert any(logs_in(pair, "lucky", word) for word in candidates), str(result)
    drop(pair, "lucky")


def test_password_from_standard_input(pair):
    pair.run("user", "create", "piped", "--password-stdin", input="from stdin\n").ok()
    assert logs_in(pair, "piped", "from stdin")
    assert not logs_in(pair, "piped", "from stdin\n")
    drop(pair, "piped")


def test_empty_password_is_refused(pair):
    pair.run("user", "create", "bare", "--password-stdin", input="\n").fails((1, 2))
    pair.run("user", "create", "bare", "").fails((1, 2))
    assert role(pair, "bare") is None


@pytest.mark.parametrize("text", ["a\0bcd\n", "\0\n", "tail\0\n"])
def test_a_password_is_not_cut_at_a_nul(pair, text):
    result = pair.run("user", "create", "nul", "--password-stdin", input=text)
    result.fails(1, "password on standard input has a NUL byte")
    assert role(pair, "nul") is None


def test_password_twice_is_a_usage_error(pair):
    pair.run("user", "create", "both", "pw", "--password-stdin", input="pw\n").fails(2)
    assert role(pair, "both") is None


def test_passwords_are_stored_as_scram_verifiers(pair):
    pair.run("user", "create", "stored", "pw-stored").ok()
    stored = pair.value("SELECT rolpassword FROM pg_authid WHERE rolname = 'stored'")
    assert stored.startswith("SCRAM-SHA-256$")
    drop(pair, "stored")


def test_change_of_password(pair):
    pair.run("user", "create", "changer", "old-pw").ok()
    pair.run("user", "password", "changer", "new-pw").ok()
    assert logs_in(pair, "changer", "new-pw") and not logs_in(pair, "changer", "old-pw")
    result = pair.run("user", "password", "changer").ok()
    words = re.findall(r"[A-Za-z0-9]{20,}", result.out)
    assert any(logs_in(pair, "changer", word) for word in words), str(result)
    drop(pair, "changer")


def test_password_of_an_unknown_user(pair):
    pair.run("user", "password", "ghost", "x").fails(1, "ghost")
    assert role(pair, "ghost") is None


def test_passwords_never_show(single):
    """Neither in a process list, nor in any file, nor in the server's view of the statement."""
    secrets = ["Zx81-argument-pw", "Zx82-stdin-pw", "Zx83-changed-pw"]
    single.sql("ALTER SYSTEM SET log_statement = 'all'")
    single.sql("ALTER SYSTEM SET log_min_duration_statement = 0")
    single.sql("SELECT pg_reload_conf()")
    # an argument is in the process list until main() has overwritten it: not looked at here
    with Sampler(*secrets[1:]) as sampler:
        single.run("user", "create", "a", secrets[0]).ok()
        single.run("user", "create", "b", "--password-stdin", input=secrets[1] + "\n").ok()
        single.run("user", "password", "b", "--password-stdin", input=secrets[2] + "\n").ok()
        single.run("user", "create", "b", "--password-stdin", input=secrets[2] + "\n").fails(1)
        assert sampler.looks > 3
    assert not sampler.hits
    for path in single.path("logs").rglob("*"):
        text = path.read_text(errors="replace") if path.is_file() else ""
        for secret in secrets:
            assert secret not in text, path
    for path in single.path("store").rglob("*"):
        if path.is_file():
            assert not any(s in path.read_text(errors="replace") for s in secrets), path
    single.sql("ALTER SYSTEM RESET ALL")
    single.sql("SELECT pg_reload_conf()")
    drop(single, "a", "b")


# -- existing users -------------------------------------------------------------------------------


def test_existing_user_is_refused_and_unchanged(pair):
    pair.run("user", "create", "taken", "first-pw").ok()
    pair.run("user", "create", "taken", "second-pw").fails(1, ["taken", "exists", "user password"])
    assert logs_in(pair, "taken", "first-pw")
    drop(pair, "taken")


def test_existing_user_gets_another_schema_and_keeps_the_password(pair):
    pair.run("user", "create", "grower", "first-pw", "--schema", "app1").ok()
    result = pair.run("user", "create", "grower", "other-pw", "--schema", "migration1").ok()
    assert "password" in (result.out + result.err).lower(), "says that the password was kept"
    assert logs_in(pair, "grower", "first-pw") and not logs_in(pair, "grower", "other-pw")
    schemas = pair.sql("SELECT nspname FROM pg_namespace WHERE nspowner = 'grower'::regrole"
                       " ORDER BY 1")
    assert schemas == [("app1",), ("migration1",)]
    path = pair.value("SHOW search_path", user="grower", password="first-pw")
    assert path.split(",")[0].strip() == "app1", "the first schema stays the first"
    pair.run("user", "create", "grower", "--schema", "app1").fails(1, "exists")
    drop(pair, "grower")


def test_schema_of_somebody_else_is_refused(pair):
    pair.run("user", "create", "owner1", "pw", "--schema", "owned").ok()
    pair.run("user", "create", "thief", "pw", "--schema", "owned").fails(1, "owned")
    assert role(pair, "thief") is None, "nothing half made"
    drop(pair, "owner1")


# -- list -----------------------------------------------------------------------------------------


def users(cluster):
    return cluster.run("user", "list", "--json").ok().json["users"]


def test_list(pair):
    pair.run("user", "create", "listed", "pw", "--schema", "listed_schema", "--createdb").ok()
    entry = next(u for u in users(pair) if u["name"] == "listed")
    assert "listed_schema" in str(entry) and entry["createdb"] is True
    assert entry.get("superuser") is False
    out = pair.run("user", "list").ok().out
    line = next(x for x in out.splitlines() if x.startswith("listed"))
    assert "listed_schema" in line
    assert "SCRAM" not in out
    drop(pair, "listed")


# -- delete ---------------------------------------------------------------------------------------


def test_delete_reassigns_in_every_database(pair):
    pair.run("user", "create", "leaver", "pw", "--schema", "leaver", "--createdb").ok()
    pair.sql("CREATE TABLE t1 AS SELECT 1 AS x", user="leaver", password="pw")
    pair.sql("CREATE DATABASE second", user="leaver", password="pw")
    pair.sql("CREATE TABLE public.t2 AS SELECT 2 AS x", user="leaver", password="pw",
             dbname="second")
    pair.sql('CREATE DATABASE "third db\'s"')
    pair.sql("GRANT CREATE ON SCHEMA public TO leaver", dbname="third db's")
    pair.sql("CREATE TABLE public.t3 AS SELECT 3 AS x", user="leaver", password="pw",
             dbname="third db's")
    pair.sql("GRANT SELECT ON t3 TO leaver", dbname="third db's")
    pair.run("user", "delete", "leaver").ok()
    assert role(pair, "leaver") is None
    assert pair.value("SELECT x FROM leaver.t1") == 1
    assert pair.value("SELECT x FROM t2", dbname="second") == 2
    assert pair.value("SELECT x FROM t3", dbname="third db's") == 3
    assert pair.value("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'second'") \
        == "postgres"
    pair.sql("DROP DATABASE second")
    pair.sql('DROP DATABASE "third db\'s"')
    pair.sql("DROP SCHEMA leaver CASCADE")


def test_delete_with_its_schemas(pair):
    pair.run("user", "create", "gone", "pw", "--schema", "gone").ok()
    pair.sql("CREATE TABLE t (x int)", user="gone", password="pw")
    pair.run("user", "delete", "gone", "--drop-schema").ok()
    assert role(pair, "gone") is None
    assert pair.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'gone'") == 0


def test_delete_keeps_schemas_of_others_and_public(pair):
    pair.run("user", "create", "mixed", "pw", "--schema", "mixed").ok()
    pair.sql("GRANT CREATE ON SCHEMA public TO mixed")
    pair.sql("CREATE TABLE public.of_mixed AS SELECT 1 AS x", user="mixed", password="pw")
    pair.run("user", "delete", "mixed", "--drop-schema").ok()
    assert pair.value("SELECT x FROM public.of_mixed") == 1
    pair.sql("DROP TABLE public.of_mixed")


def test_delete_ends_the_users_sessions(pair):
    pair.run("user", "create", "online", "pw").ok()
    conn = pair.connect(user="online", password="pw")
    pair.run("user", "delete", "online").ok()
    with pytest.raises(psycopg2.Error), conn.cursor() as cursor:
        cursor.execute("SELECT 1")


@pytest.mark.parametrize("name", ["ghost", "postgres", "pgduet_replicator", "pg_monitor", ""])
def test_delete_refuses(pair, name):
    count = pair.value("SELECT count(*) FROM pg_roles")
    pair.run("user", "delete", "--", name).fails((1, 2))
    assert pair.value("SELECT count(*) FROM pg_roles") == count
    pair.assert_healthy()
