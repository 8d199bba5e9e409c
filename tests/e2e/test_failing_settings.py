"""Settings that only a start would refuse, and a primary that cannot start."""

import re
import shutil
import subprocess

import pytest

from utils import wait_until

REFUSED = [("wal_level", "minimal"), ("superuser_reserved_connections", "5000"),
           ("shared_preload_libraries", "nosuch"), ("max_wal_senders", "1"), ("ssl", "on"),
           ("session_preload_libraries", "nosuch"), ("local_preload_libraries", "nosuch"),
           ("unix_socket_group", "nosuchgrp")]


# -- refused before they are written --------------------------------------------------------------


@pytest.mark.parametrize("name,value", REFUSED)
def test_set_refuses_what_no_server_would_start_with(pair, name, value):
    before = pair.conf.read_text()
    generated = [(pair.data(n) / "postgresql.conf").read_text() for n in pair.names]
    shown = [pair.show(name, n) for n in pair.names]
    result = pair.run("config", "set", f"postgres.{name}", value)
    result.fails(1, [rf"pgduet\.conf:\d+: .*{name}", re.escape(value)])
    assert pair.conf.read_text() == before
    assert [(pair.data(n) / "postgresql.conf").read_text() for n in pair.names] == generated
    assert [pair.show(name, n) for n in pair.names] == shown
    assert not any(n["pending_restart"] for n in pair.status()["nodes"])


@pytest.mark.parametrize("name,value,why", [
    ("synchronous_standby_names", "pg-2", "a name with a hyphen needs double quotes"),
    ("synchronous_standby_names", "FIRST 1 (", "syntax error at"),
    ("session_replication_role", "banana", "Available values: "),
])
def test_what_postgresql_says_of_a_value_is_the_hint(pair, name, value, why):
    pair.run("config", "set", f"postgres.{name}", value).fails(
        1, [rf"pgduet\.conf:\d+: PostgreSQL refuses {name}", f"; hint: {why}"])


@pytest.mark.parametrize("name,value", REFUSED)
def test_a_restart_with_them_stops_nothing(pair, name, value):
    pids = [pair.pids(n) for n in pair.names]
    path = "config/primary.conf"
    before = pair.path(path).read_text()
    line = len(before.rstrip("\n").splitlines()) + 1
    pair.write(path, before.rstrip("\n") + f"\n{name} = {value}\n")
    try:
        for command in (("config", "reload"), ("restart",)):
            pair.run(*command).fails(1, rf"config/primary\.conf:{line}: .*{name}")
        assert [pair.pids(n) for n in pair.names] == pids
        pair.sql("SELECT 1")
    finally:
        pair.write(path, before)
    pair.run("config", "reload").ok()
    pair.assert_healthy()


@pytest.mark.parametrize("name,value", REFUSED)
def test_up_with_them_starts_nothing(cluster, name, value):
    cluster.edit("pgduet.conf", lambda t: t.replace("[postgres]\n",
                                                    f"[postgres]\n{name} = {value}\n", 1))
    cluster.run("up", "--timeout", "20").fails(1, rf"pgduet\.conf:\d+: .*{name}")
    cluster.assert_nothing_runs()
    assert not cluster.data("pg1").exists()


@pytest.mark.parametrize("value,why", [
    ("nohost.invalid", "cannot resolve host 'nohost.invalid'"),
    ("127.0.0.1, nohost.invalid", "cannot resolve host 'nohost.invalid'"),
    ("192.0.2.1", "cannot listen on '192.0.2.1'"),
])
def test_an_address_nobody_can_listen_on(pair, value, why):
    before = pair.conf.read_text()
    pids = [pair.pids(n) for n in pair.names]
    pair.run("config", "set", "listen", value).fails(1, rf"pgduet\.conf:\d+: listen: {why}")
    assert pair.conf.read_text() == before
    try:
        pair.edit("pgduet.conf", lambda t: t.replace("[postgres]\n",
                                                     f"[postgres]\nlisten = {value}\n", 1))
        for command in (("config", "reload"), ("restart",)):
            pair.run(*command).fails(1, rf"pgduet\.conf:\d+: listen: {why}")
        assert [pair.pids(n) for n in pair.names] == pids
    finally:
        pair.write("pgduet.conf", before)
    pair.run("config", "reload").ok()
    pair.assert_healthy()


def test_tls_with_a_certificate(fresh_pair):
    """Files beside the data, each node its own; the key must not be for everybody."""
    def ssl(code, *match):
        result = fresh_pair.run("config", "set", "ssl", "on")
        return result.ok() if code == 0 else result.fails(code, list(match))

    for node in fresh_pair.names:
        ssl(1, rf"pgduet\.conf:\d+: ssl = 'on': .*{node}/server\.crt: No such file")
        key, cert = fresh_pair.data(node) / "server.key", fresh_pair.data(node) / "server.crt"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x",
                        "-keyout", key, "-out", cert], check=True, capture_output=True)
        key.chmod(0o644)
        fresh_pair.give_to_server_user(key, cert)
        ssl(1, rf"{node}/server\.key can be read by others")
        key.chmod(0o600)
    ssl(0)
    fresh_pair.run("restart").ok()
    fresh_pair.sql("SELECT 1", sslmode="require")
    fresh_pair.assert_healthy()


# -- the error of `up` ----------------------------------------------------------------------------


def bad_library(data, away):
    with open(data / "postgresql.auto.conf", "a", encoding="ascii") as f:
        f.write("shared_preload_libraries = 'nosuch'\n")
    return r'FATAL: .*could not access file "nosuch"'


def closed_directory(data, away):
    (data / "pg_wal").chmod(0)
    return r"(FATAL|PANIC): .*pg_wal"


def no_checkpoint(data, away):
    """PANIC: the server aborts, it does not exit."""
    away.mkdir()
    for segment in (data / "pg_wal").glob("0*"):
        shutil.move(segment, away)
    return r"PANIC: .*could not locate a valid checkpoint record"


@pytest.mark.parametrize("damage", [bad_library, closed_directory, no_checkpoint])
def test_the_failing_primary_is_named_and_not_the_waiting_replica(fresh_pair, damage):
    fresh_pair.down()
    data, away = fresh_pair.data("pg1"), fresh_pair.base / "away"
    auto_conf = (data / "postgresql.auto.conf").read_text()
    word = damage(data, away)
    result = fresh_pair.run("up", "--timeout", "8")
    result.fails(1, [r"pgduet: pg1\b", word])
    assert len(re.findall(word, result.err)) <= 2, "once on the way, and once in the end"
    assert not re.search(r"^pgduet: pg2\b", result.err, re.M), result
    wait_until(lambda: re.search(word, str(fresh_pair.beacon("pg1").get("error"))),
               "the server's word in pg1's state")
    assert re.search(word, fresh_pair.run("status").ok().out), "status does not tell it"
    (data / "postgresql.auto.conf").write_text(auto_conf)
    (data / "pg_wal").chmod(0o700)
    for segment in away.glob("0*") if away.exists() else []:
        shutil.move(segment, data / "pg_wal")
    fresh_pair.up()
    fresh_pair.assert_healthy()
