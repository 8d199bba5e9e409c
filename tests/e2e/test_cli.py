"""The command line itself: help, versions, usage errors, and finding the directory."""

import re

import pytest

from utils import IS_ROOT, bindir

COMMANDS = ("init", "up", "down", "agent", "status", "check", "restart", "config", "user", "url",
            "psql", "logs", "version", "help")


@pytest.fixture
def offline(make_cluster):
    """A directory whose nodes were never started."""
    return make_cluster()


def test_version_names_program_and_postgresql(make_cluster):
    cluster = make_cluster(init=False)
    out = cluster.run(argv=[str(cluster.pgduet), "version"]).ok().out
    assert re.search(r"^pgduet \d+\.\d+\.\d+", out), out
    assert re.search(r"PostgreSQL.*\b1[5-8]\.\d+", out), out


def test_version_names_the_directory_of_the_programs(offline):
    assert (bindir(offline) / "postgres").exists()


def test_help_lists_every_command(offline):
    out = offline.run("help").ok().out
    for command in COMMANDS:
        assert re.search(rf"^\s+{command}\b", out, re.M), f"{command} is not in:\n{out}"
    assert offline.run("--help").ok().out == out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(offline, command):
    result = offline.run(command, "--help").ok()
    assert command in result.out and result.err == "", str(result)


def test_help_of_a_command(offline):
    assert offline.run("help", "init").ok().out == offline.run("init", "--help").ok().out


def test_no_command_is_a_usage_error(offline):
    result = offline.run()
    assert result.code == 2 and "init" in result.err, str(result)


def test_unknown_command(offline):
    offline.run("statsu").fails(2, "statsu")


@pytest.mark.parametrize("args", [
    ("up", "--frobnicate"), ("status", "--jason"), ("down", "extra", "words"), ("agent",),
    ("config",), ("config", "frobnicate"), ("config", "set", "postgres.work_mem"), ("user",),
    ("user", "create"), ("user", "frobnicate"), ("url", "--for"), ("url", "--for", "nonsense"),
    ("url", "--format", "nonsense"), ("check", "--max-lag", "much"), ("up", "--timeout", "soon"),
    ("up", "--timeout", "-1"), ("logs", "-n", "many"),
])
def test_usage_errors_exit_2(offline, args):
    codes = (2, 3) if args[0] == "check" else 2  # monitoring reads 2 as critical
    offline.run(*args).fails(codes)


@pytest.mark.parametrize("command", ["up", "down", "status", "restart", "url", "psql", "logs"])
def test_outside_of_any_directory(make_cluster, command):
    cluster = make_cluster(init=False)
    cluster.run(argv=[str(cluster.pgduet), command]).fails(1, "hint: .*init")


def test_directory_that_does_not_exist(make_cluster):
    make_cluster(init=False).run("status").fails(1, "cluster")


def test_directory_from_environment(offline):
    argv = [str(offline.pgduet), "status", "--json"]
    result = offline.run(argv=argv, env={"PGDUET_DIR": str(offline.dir)}).ok()
    assert len(result.json["nodes"]) == 2


def test_directory_from_the_working_directory_and_its_parents(offline):
    for cwd in (offline.dir, offline.path("config")):
        result = offline.run(argv=[str(offline.pgduet), "status", "--json"], cwd=cwd).ok()
        assert len(result.json["nodes"]) == 2


def test_relative_directory(offline):
    argv = [str(offline.pgduet), "-C", "cluster", "status", "--json"]
    assert len(offline.run(argv=argv, cwd=offline.base).ok().json["nodes"]) == 2


@pytest.mark.skipif(not IS_ROOT, reason="becomes another user, which takes root")
@pytest.mark.parametrize("command", ["up", "status", "down"])
def test_another_user_is_refused(offline, command):
    offline.run(command, user="nobody").fails((1, 2, 3))


@pytest.mark.parametrize("command", [
    ("restart",), ("restart", "pg1"), ("user", "list"), ("user", "create", "someone"),
    ("psql", "--", "-c", "select 1"), ("config", "reload"),
])
def test_what_needs_servers_says_that_they_are_down(offline, command):
    offline.run(*command).fails(1, "hint: .*up")


@pytest.mark.parametrize("command", [("restart", "pg9"), ("logs", "pg9"), ("agent", "pg9")])
def test_unknown_node(offline, command):
    offline.run(*command).fails((1, 2), "pg9")


def test_errors_are_one_line(offline):
    for args in (("agent", "pg9"), ("restart",), ("user", "list")):
        result = offline.run(*args)
        assert len(result.err.strip().splitlines()) == 1, str(result)
