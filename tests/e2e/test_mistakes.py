"""Mistakes that must neither hide a cluster's state nor keep it from being stopped."""

import os


def test_down_with_a_mistake_in_the_configuration(fresh_pair):
    fresh_pair.edit("pgduet.conf", lambda t: t + "nonsense\n")
    fresh_pair.run("status").fails(1, ["pgduet.conf:"])
    result = fresh_pair.run("down", timeout=60).ok()
    assert "pgduet.conf:" in result.err
    fresh_pair.assert_nothing_runs()
    fresh_pair.edit("pgduet.conf", lambda t: t.replace("nonsense\n", ""))
    fresh_pair.up()
    fresh_pair.assert_healthy()


def test_an_unfinished_directory_of_somebody_else_is_left_alone(fresh_pair):
    fresh_pair.down()
    foreign = fresh_pair.path("data/pg2.new")
    foreign.mkdir()
    (foreign / "precious").write_text("not pgduet's")
    fresh_pair.run("up").fails(1, ["pg2.new", "hint: "])
    assert (foreign / "precious").read_text() == "not pgduet's"
    (foreign / "precious").unlink()
    foreign.rmdir()
    fresh_pair.up()
    fresh_pair.assert_healthy()


def test_check_warns_of_a_lost_lock_file(fresh_pair):
    lock = fresh_pair.path("store/locks/pg2.guard")
    away = str(lock) + ".away"
    fresh_pair.run("check").ok()
    os.rename(lock, away)
    try:
        result = fresh_pair.run("check")
        assert result.code == 1 and "pg2.guard" in result.out, result
    finally:
        os.rename(away, lock)
    fresh_pair.run("check").ok()
