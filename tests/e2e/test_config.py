"""Settings: `config show|set|reload`, role files, mistakes, and what ALTER SYSTEM may not do."""

import re

import pytest

from utils import kill, wait_until


def line_of(cluster, relative, text):
    lines = cluster.path(relative).read_text().splitlines()
    return lines.index(text) + 1


def append(cluster, relative, line):
    """Add a line to a file; its number."""
    cluster.edit(relative, lambda t: t.rstrip("\n") + "\n" + line + "\n")
    return line_of(cluster, relative, line)


def add_setting(cluster, line):
    """Add a line to [postgres] of pgduet.conf; its number."""
    cluster.edit("pgduet.conf", lambda t: t.replace("[postgres]\n", f"[postgres]\n{line}\n", 1))
    return line_of(cluster, "pgduet.conf", line)


def shows(cluster, setting, value, *nodes):
    for node in nodes or cluster.names:
        wait_until(lambda: cluster.show(setting, node) == value,
                   f"{setting} = {value} on {node}")


# -- show -----------------------------------------------------------------------------------------


def test_show_everything(pair):
    out = pair.run("config", "show").ok().out
    for word in ("max_connections", "memory", "database", "shared_buffers", "work_mem"):
        assert word in out
    for secret in pair.secrets().values():
        assert secret not in out


def test_show_one(pair):
    assert pair.run("config", "show", "cluster.database").ok().out.strip() == "myapp"
    assert pair.run("config", "show", "postgres.memory").ok().out.strip() == "256MB"


def test_show_tells_what_the_servers_really_use(pair):
    for name in ("shared_buffers", "effective_cache_size", "max_connections", "random_page_cost"):
        assert pair.run("config", "show", f"postgres.{name}").ok().out.strip() == pair.show(name)


def test_show_json(pair):
    shown = pair.run("config", "show", "--json").ok().json
    assert "myapp" in str(shown) and "max_connections" in str(shown)


def test_show_unknown(pair):
    pair.run("config", "show", "postgres.work_memm").fails(1, "work_memm")


# -- set, reload ----------------------------------------------------------------------------------


def test_set_and_reload(fresh_pair):
    before = fresh_pair.conf.read_text()
    fresh_pair.run("config", "set", "postgres.work_mem", "17MB").ok()
    fresh_pair.run("config", "reload").ok()
    shows(fresh_pair, "work_mem", "17MB")
    after = fresh_pair.conf.read_text().splitlines()
    removed = [line for line in before.splitlines() if line not in after]
    assert [line for line in removed if "work_mem" not in line] == [], "comments are lost"
    assert fresh_pair.run("config", "show", "postgres.work_mem").ok().out.strip() == "17MB"


def test_set_again_replaces(fresh_single):
    for value in ("11MB", "12MB"):
        fresh_single.run("config", "set", "postgres.work_mem", value).ok()
    text = fresh_single.conf.read_text()
    assert "12MB" in text and "11MB" not in text


def test_set_values_with_spaces_and_quotes(fresh_single):
    value = "'it''s' \"odd\" # not a comment"
    fresh_single.run("config", "set", "postgres.search_path", "app, public").ok()
    fresh_single.run("config", "set", "myext.words", value).fails((1, 2))
    fresh_single.run("config", "set", "postgres.myext.words", value).ok()
    fresh_single.run("config", "reload").ok()
    shows(fresh_single, "search_path", "app, public")
    shows(fresh_single, "myext.words", value)


def test_restart_only_settings_wait_for_a_restart(fresh_pair):
    result = fresh_pair.run("config", "set", "postgres.max_connections", "150").ok()
    reload = fresh_pair.run("config", "reload").ok()
    wait_until(lambda: all(n["pending_restart"] for n in fresh_pair.status()["nodes"]),
               "both nodes to show the pending restart")
    assert "restart" in result.out + result.err + reload.out + reload.err
    assert fresh_pair.show("max_connections") != "150"
    fresh_pair.run("restart").ok()
    shows(fresh_pair, "max_connections", "150")
    assert not any(n["pending_restart"] for n in fresh_pair.status()["nodes"])
    fresh_pair.assert_healthy()


@pytest.mark.parametrize("key,value", [
    ("postgres.work_memm", "1MB"), ("postgres.max_connections", "many"),
    ("postgres.max_connections", "-1"), ("postgres.work_mem", "banana"),
    ("postgres.wal_level", "bogus"), ("postgres.memory", "lots"), ("cluster.colour", "red"),
    ("cluster.start_timeout", "soon"), ("node.port", "1"), ("nodot", "1"), ("postgres.", "1"),
    ("postgres.shared_buffers", "1 potato"), ("postgres.data_checksums", "off"),
])
def test_set_refuses_nonsense_and_changes_nothing(pair, key, value):
    before = pair.conf.read_text()
    pair.run("config", "set", key, value).fails((1, 2), re.escape(key.split(".")[-1]))
    assert pair.conf.read_text() == before


def test_set_negative_values(fresh_single):
    fresh_single.run("config", "set", "postgres.log_min_duration_statement", "-1").ok()
    fresh_single.run("config", "reload").ok()
    shows(fresh_single, "log_min_duration_statement", "-1")


def test_set_while_down(cluster):
    cluster.run("config", "set", "postgres.work_mem", "19MB").ok()
    cluster.up()
    shows(cluster, "work_mem", "19MB")


def test_a_node_whose_server_is_down_is_not_called_reloaded(fresh_pair):
    signal_file = fresh_pair.data("pg2") / "standby.signal"
    signal_file.rename(fresh_pair.base / "away")
    kill(fresh_pair.postmaster_pid("pg2"))
    wait_until(lambda: fresh_pair.beacon("pg2").get("state") == "failed", "pg2 to stay down")
    result = fresh_pair.run("config", "set", "work_mem", "19MB").ok()
    assert "reloaded pg1\npg2: at its next start\n" in result.out
    told = fresh_pair.run("config", "reload", "--json").ok().json
    assert (told["reloaded"], told["at_next_start"]) == (["pg1"], ["pg2"])
    (fresh_pair.base / "away").rename(signal_file)
    fresh_pair.up()
    shows(fresh_pair, "work_mem", "19MB")
    told = fresh_pair.run("config", "reload", "--json").ok().json
    assert (told["reloaded"], told["at_next_start"]) == (["pg2", "pg1"], [])


def test_edit_by_hand_and_reload(fresh_pair):
    add_setting(fresh_pair, "maintenance_work_mem = 33MB")
    fresh_pair.run("config", "reload").ok()
    shows(fresh_pair, "maintenance_work_mem", "33MB")


def test_reload_refuses_a_broken_file_and_servers_go_on(fresh_pair):
    line = add_setting(fresh_pair, "work_memm = 33MB")
    fresh_pair.run("config", "reload").fails(1, [rf"pgduet\.conf:{line}:", "work_mem"])
    fresh_pair.sql("SELECT 1")
    fresh_pair.edit("pgduet.conf", lambda t: t.replace("work_memm = 33MB\n", ""))
    fresh_pair.run("config", "reload").ok()
    fresh_pair.assert_healthy()


def test_pg_hba_rules_are_added(fresh_single):
    append(fresh_single, "config/pg_hba.conf", "host  all  nosuchuser  10.9.8.7/32  scram-sha-256")
    fresh_single.run("config", "reload").ok()
    wait_until(lambda: fresh_single.value(
        "SELECT count(*) FROM pg_hba_file_rules WHERE address = '10.9.8.7'") == 1, "the new rule")


# -- mistakes in files ----------------------------------------------------------------------------


@pytest.mark.parametrize("line", [
    "nonsense", "[cluster", "[nosuchsection]", "colour = red", "max_connections = many",
    "memory = lots", "= 5", "work_mem = '1MB", "shared_bufers = 1GB", "work_mem = banana",
])
def test_mistake_in_pgduet_conf(cluster, line):
    number = add_setting(cluster, line)
    result = cluster.run("up")
    result.fails(1, rf"pgduet\.conf:{number}:")
    cluster.assert_nothing_runs()
    assert not list(cluster.path("data").iterdir()), "nothing half made"


@pytest.mark.parametrize("file", ["config/primary.conf", "config/replica.conf"])
@pytest.mark.parametrize("line", [
    "shared_bufers = 1GB", "work_mem = banana", "work_mem = '1MB", "include 'other.conf'",
])
def test_mistake_in_a_role_file(cluster, file, line):
    number = append(cluster, file, line)
    cluster.run("up").fails(1, rf"{re.escape(file)}:{number}:")
    cluster.assert_nothing_runs()


@pytest.mark.parametrize("line", [
    "host all all 10.0.0.0/8 trust", "hosst all all 10.0.0.0/8 scram-sha-256", "host all all",
    "host all all 10.0.0.0/8 scram-sha-2566", "local all all trust",
    "host all all 10.0.0.0/99 scram-sha-256", "host all all 300.1.1.1/32 scram-sha-256",
    "host all all 10.0.0.0/8 peer", "host all all 10.0.0.0/8 scram-sha-256 nonsense",
])
def test_mistake_in_pg_hba_conf(cluster, line):
    number = append(cluster, "config/pg_hba.conf", line)
    cluster.run("up", "--timeout", "8").fails(1, rf"config/pg_hba\.conf:{number}:")
    cluster.assert_nothing_runs()


@pytest.mark.parametrize("line", ["host all all 10.0.0.0/99 scram-sha-256", "nonsense"])
def test_mistake_in_pg_hba_conf_of_a_running_server(fresh_single, line):
    append(fresh_single, "config/pg_hba.conf", line)
    fresh_single.run("config", "reload").fails(1, "pg_hba")
    assert fresh_single.value("SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL") == 0
    fresh_single.edit("config/pg_hba.conf", lambda t: t.replace(line, ""))
    fresh_single.run("config", "reload").ok()


@pytest.mark.parametrize("text", ["POSTGRES_ADMIN_PASSWORD", "=x", "POSTGRES_ADMIN_PASSWORD='half"])
def test_mistake_in_env(cluster, text):
    number = append(cluster, ".env", text)
    cluster.run("up").fails(1, rf"\.env:{number}:")


def test_missing_secret(cluster):
    cluster.edit(".env", lambda t: re.sub(r"^POSTGRES_REPLICATION_PASSWORD=.*$", "", t, flags=re.M))
    cluster.run("up").fails(1, ["POSTGRES_REPLICATION_PASSWORD", r"\.env"])
    cluster.assert_nothing_runs()


def test_mistakes_never_show_secrets(cluster):
    secret = cluster.admin_password
    cluster.edit(".env", lambda t: t.replace(f"POSTGRES_ADMIN_PASSWORD={secret}",
                                             f"POSTGRES_ADMIN PASSWORD={secret}"))
    result = cluster.run("up").fails(1)
    assert secret not in result.err + result.out


# -- role files -----------------------------------------------------------------------------------


def test_role_files_apply_by_role(cluster):
    append(cluster, "config/primary.conf", "work_mem = 11MB")
    append(cluster, "config/replica.conf", "work_mem = 13MB")
    append(cluster, "config/replica.conf", "max_standby_streaming_delay = 77s")
    cluster.up()
    assert cluster.show("work_mem", "pg1") == "11MB"
    assert cluster.show("work_mem", "pg2") == "13MB"
    assert cluster.show("max_standby_streaming_delay", "pg2") == "77s"
    assert cluster.show("max_standby_streaming_delay", "pg1") == "30s"
    cluster.edit("config/replica.conf", lambda t: t.replace("13MB", "14MB"))
    cluster.run("config", "reload").ok()
    shows(cluster, "work_mem", "14MB", "pg2")
    assert cluster.show("work_mem", "pg1") == "11MB"


def test_role_files_beat_pgduet_conf(cluster):
    add_setting(cluster, "work_mem = 9MB")
    append(cluster, "config/primary.conf", "work_mem = 11MB")
    cluster.up()
    assert (cluster.show("work_mem", "pg1"), cluster.show("work_mem", "pg2")) == ("11MB", "9MB")


def test_restart_only_settings_come_from_the_primarys_file(cluster):
    append(cluster, "config/primary.conf", "shared_buffers = 40MB")
    append(cluster, "config/replica.conf", "shared_buffers = 50MB")
    cluster.up()
    for node in cluster.names:
        assert cluster.show("shared_buffers", node) == "40MB"
    told = cluster.node_log("pg1") + cluster.node_log("pg2")
    assert re.search(r"config/replica\.conf.*shared_buffers|shared_buffers.*config/replica\.conf",
                     told), "the ignored setting is not reported"


def test_hot_standby_settings_are_the_maximum_of_both_files(cluster):
    append(cluster, "config/primary.conf", "max_connections = 120")
    append(cluster, "config/replica.conf", "max_connections = 140")
    append(cluster, "config/primary.conf", "max_prepared_transactions = 7")
    append(cluster, "config/replica.conf", "max_prepared_transactions = 3")
    cluster.up()
    for node in cluster.names:
        assert cluster.show("max_connections", node) == "140"
        assert cluster.show("max_prepared_transactions", node) == "7"
    cluster.assert_healthy()


def test_safety_settings_win_and_the_loser_is_reported(cluster):
    line = add_setting(cluster, "hot_standby = off")
    append(cluster, "config/primary.conf", "fsync = off")
    cluster.up()
    assert cluster.show("hot_standby", "pg2") == "on"
    assert cluster.show("fsync", "pg1") == "on"
    for origin, setting in ((rf"pgduet\.conf:{line}", "hot_standby"),
                            (r"config/primary\.conf:\d+", "fsync")):
        told = [x for x in cluster.node_log("pg1").splitlines() if setting in x]
        assert any(re.search(origin, x) for x in told), f"{setting} is not reported: {told}"


def test_generated_file_says_where_to_change_values(pair):
    for node in pair.names:
        head = "\n".join((pair.data(node) / "postgresql.conf").read_text().splitlines()[:4])
        assert "enerated by pgduet" in head.splitlines()[0]
        assert "pgduet.conf" in head


def test_edits_of_the_generated_file_do_not_last(fresh_single):
    with open(fresh_single.data("pg1") / "postgresql.conf", "a", encoding="utf-8") as f:
        f.write("work_mem = 99MB\n")
    fresh_single.run("restart").ok()
    assert fresh_single.show("work_mem") != "99MB"


# -- ALTER SYSTEM ---------------------------------------------------------------------------------


@pytest.mark.parametrize("setting,value", [
    ("primary_conninfo", "host=192.0.2.1"), ("hot_standby", "off"), ("fsync", "off"),
    ("port", "1"), ("password_encryption", "md5"), ("listen_addresses", "*"),
])
def test_alter_system_of_a_safety_setting_is_removed_and_reported(fresh_pair, setting, value):
    auto = fresh_pair.data("pg1") / "postgresql.auto.conf"
    fresh_pair.sql(f"ALTER SYSTEM SET {setting} = '{value}'")
    wait_until(lambda: setting not in auto.read_text(), f"{setting} to vanish from {auto}")
    wait_until(lambda: setting in fresh_pair.node_log("pg1"), "the report in pgduet.log")
    fresh_pair.run("restart", "pg1").ok()
    assert fresh_pair.show(setting) != value
    fresh_pair.assert_healthy()


def test_alter_system_of_other_settings_stays(fresh_single):
    fresh_single.sql("ALTER SYSTEM SET work_mem = '21MB'")
    fresh_single.sql("ALTER SYSTEM SET fsync = 'off'")
    auto = fresh_single.data("pg1") / "postgresql.auto.conf"
    wait_until(lambda: "fsync" not in auto.read_text(), "fsync to vanish")
    fresh_single.run("restart").ok()
    assert fresh_single.show("work_mem") == "21MB"


def test_unsafe_auto_conf_found_at_start(fresh_single):
    fresh_single.down()
    auto = fresh_single.data("pg1") / "postgresql.auto.conf"
    auto.write_text(auto.read_text() + "fsync = 'off'\nwork_mem = '22MB'\nport = '1'\n")
    fresh_single.up()
    assert fresh_single.show("fsync") == "on" and fresh_single.show("work_mem") == "22MB"
    assert "fsync" in fresh_single.node_log("pg1")
    assert "fsync" not in auto.read_text()
