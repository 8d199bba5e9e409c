"""`url`, `psql` and `logs`: the ways in."""

import os
import re
import signal
from urllib.parse import parse_qs, unquote, urlsplit

import psycopg2
import pytest

from utils import Sampler, wait_until


def url(cluster, *args):
    return cluster.run("url", *args).ok().out.strip()


# -- url ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("purpose,port,in_recovery", [
    ("write", 0, False), ("read", 1, True), ("admin", 0, False),
])
def test_urls_lead_to_the_right_node(pair, purpose, port, in_recovery):
    parts = urlsplit(url(pair, "--for", purpose, "--user", "postgres"))
    assert parts.scheme in ("postgresql", "postgres")
    assert (parts.hostname, parts.port) == ("127.0.0.1", pair.first_port + port)
    assert parts.path == "/myapp"
    conn = psycopg2.connect(host=parts.hostname, port=parts.port, dbname=parts.path[1:],
                            user="postgres", password=pair.admin_password)
    with conn, conn.cursor() as cursor:
        cursor.execute("SELECT pg_is_in_recovery()")
        assert cursor.fetchone()[0] is in_recovery
    conn.close()


def test_admin_url_works_as_it_is(pair):
    conn = psycopg2.connect(url(pair, "--for", "admin"))
    with conn, conn.cursor() as cursor:
        cursor.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        assert cursor.fetchone()[0] is True
    conn.close()


def test_users_url_names_the_user_and_no_wrong_password(pair):
    parts = urlsplit(url(pair, "--user", "app_user", "--for", "write"))
    assert parts.username == "app_user"
    assert pair.admin_password not in parts.netloc


def test_nodes_url_finds_the_primary_by_itself(pair):
    text = url(pair, "--for", "nodes", "--user", "postgres")
    assert f"127.0.0.1:{pair.first_port}" in text and f":{pair.first_port + 1}" in text
    assert "target_session_attrs=read-write" in text
    conn = psycopg2.connect(text, password=pair.admin_password)
    with conn, conn.cursor() as cursor:
        cursor.execute("SELECT pg_is_in_recovery()")
        assert cursor.fetchone()[0] is False
    conn.close()


@pytest.mark.parametrize("user", ["o'brien", "with space", "a@b:c/d?e#f%g", "юзер", 'q"uote'])
def test_odd_users_are_percent_encoded(pair, user):
    text = url(pair, "--user", user, "--for", "write")
    assert re.fullmatch(r"[A-Za-z0-9:/?#\[\]@!$&'()*+,;=%._~<>-]+", text), text
    assert unquote(urlsplit(text).username) == user
    assert urlsplit(text).port == pair.first_port


def test_prisma_format(pair):
    pair.run("user", "create", "prisma", "pw", "--schema", "app").ok()
    out = url(pair, "--user", "prisma", "--format", "prisma")
    found = re.findall(r'postgresql://[^\s"]+', out)
    assert any(parse_qs(urlsplit(v).query).get("schema") == ["app"] for v in found), out
    pair.run("user", "delete", "prisma", "--drop-schema").ok()


def test_shadow_url_for_prisma(pair):
    text = url(pair, "--user", "app_user", "--for", "shadow", "--format", "prisma")
    assert "schema=migration" in text or "shadow" in text.lower(), text


def test_env_format_can_be_read_by_a_shell(pair):
    out = url(pair, "--user", "o'brien $HOME `id`", "--format", "env")
    script = 'set -eu; . "$0"; env'
    file = pair.base / "urls.env"
    file.write_text("set -a\n" + out + "\n")
    result = pair.run(argv=["/bin/sh", "-c", script, str(file)]).ok()
    lines = [x for x in result.out.splitlines() if "postgresql://" in x]
    assert lines and all("uid=" not in x and os.environ.get("HOME", "/root") not in x
                         for x in lines), result


def test_pooled_urls_wait_for_the_endpoint(pair):
    pair.run("url", "--for", "pooled").fails(1, "pool")


def test_urls_need_no_running_server(cluster):
    assert f":{cluster.first_port}/" in url(cluster, "--for", "write", "--user", "app_user")


# -- psql -----------------------------------------------------------------------------------------


def test_psql(pair):
    result = pair.run("psql", "--", "-Atc", "SELECT current_database(), pg_is_in_recovery()").ok()
    assert result.out.strip() == "myapp|f"


def test_psql_read(pair):
    result = pair.run("psql", "--read", "--", "-Atc", "SELECT pg_is_in_recovery()").ok()
    assert result.out.strip() == "t"


def test_psql_reads_standard_input(pair):
    result = pair.run("psql", "--", "-At", input="SELECT 6 * 7;\n").ok()
    assert result.out.strip() == "42"


def test_psql_passes_the_exit_code_on(pair):
    assert pair.run("psql", "--", "-v", "ON_ERROR_STOP=1", "-c", "SELECT 1/0").code == 1
    assert pair.run("psql", "--", "--no-such-option").code not in (0, None)


def test_psql_arguments_stay_whole(pair):
    result = pair.run("psql", "--", "-Atc", "SELECT 'a  b', $$it's \"x\"$$").ok()
    assert result.out.strip() == "a  b|it's \"x\""


def test_psql_keeps_the_password_out_of_the_process_list(pair):
    with Sampler(pair.admin_password) as sampler:
        pair.run("psql", "--", "-Atc", "SELECT pg_sleep(0.3)").ok()
    assert sampler.looks > 2 and not sampler.hits


def test_psql_without_servers(cluster):
    cluster.run("psql", "--", "-c", "SELECT 1").fails(1, "hint: .*up")


# -- logs -----------------------------------------------------------------------------------------


def shout(cluster, text, node="pg1"):
    """An error with this text in the server's log."""
    with pytest.raises(psycopg2.Error):
        cluster.sql(f"SELECT '{text}'::int", node)


def test_logs_of_one_node(pair):
    shout(pair, "marker-one")
    wait_until(lambda: "marker-one" in pair.server_log("pg1"), "the server to write its log")
    assert "marker-one" in pair.run("logs", "pg1").ok().out
    assert "marker-one" not in pair.run("logs", "pg2").ok().out


def test_logs_of_all_nodes(pair):
    shout(pair, "marker-a", "pg1")
    shout(pair, "marker-b", "pg2")
    wait_until(lambda: "marker-b" in pair.server_log("pg2"), "the server to write its log")
    out = pair.run("logs").ok().out
    assert "marker-a" in out and "marker-b" in out
    assert re.search(r"pg1.*marker-a", out) and re.search(r"pg2.*marker-b", out), "tells whose"


def test_last_lines(pair):
    for i in range(5):
        shout(pair, f"marker-n{i}")
    wait_until(lambda: "marker-n4" in pair.server_log("pg1"), "the server to write its log")
    out = pair.run("logs", "pg1", "-n", "3").ok().out
    assert len(out.splitlines()) == 3, out
    assert pair.server_log("pg1").splitlines()[-1] == out.splitlines()[-1]


def test_agents_log(pair):
    out = pair.run("logs", "pg1", "--agent").ok().out
    assert out.strip() and out.splitlines()[-1] in pair.node_log("pg1")


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_follow(pair, sig):
    logs = pair.start("logs", "-f")
    wait_until(lambda: logs.out, "the first lines")
    word = f"marker-follow-{sig}"
    shout(pair, word, "pg2")
    wait_until(lambda: word in logs.out, "the new line to be shown", 5)
    logs.signal(sig)
    assert logs.wait(5).code in (0, 128 + sig, -sig)


def test_follow_goes_on_with_the_next_days_file(pair):
    logs = pair.start("logs", "pg1", "-f")
    wait_until(lambda: logs.out, "the first lines")
    tomorrow = pair.path("logs", "pg1", "postgresql-2999-12-31.log")
    tomorrow.write_text("the-next-day\n")
    pair.give_to_server_user(tomorrow)
    try:
        wait_until(lambda: "the-next-day" in logs.out, "the line of the new file", 5)
    finally:
        tomorrow.unlink()
    logs.signal(signal.SIGINT)
    logs.wait(5)


def test_logs_before_the_first_up(cluster):
    result = cluster.run("logs")
    assert result.code in (0, 1), str(result)
    assert result.code == 0 or "pgduet: " in result.err
