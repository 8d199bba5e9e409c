"""Containers come and go, in any order and by any means; what was acknowledged stays, and nobody else leads."""

import os
import re
import signal

import pytest

from utils import (DATA, IMAGE, MASTER, NODES, REPLICA, docker, hold_true, inspect, is_running, query, run,
                   wait_until)

CONTROL = "/usr/lib/postgresql/17/bin/pg_controldata"


def started(d):
    return d.up().wait_streams()


def identifier_on_disk(d, node):
    """Of the data in the node's volume, whether its container runs or not."""
    out = docker("run", "--rm", "--network", "none", "-v", f"{d.volume(f'{node}-data')}:/bitnami/postgresql",
                 "--entrypoint", CONTROL, IMAGE, DATA).ok().out
    return re.search(r"system identifier: +(\d+)", out)[1]


# -- how it is set up -----------------------------------------------------------------------------


def test_containers_are_confined(pair):
    for node in NODES:
        config = docker("inspect", pair.container(node)).ok().json[0]
        host = config["HostConfig"]
        assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and not host["CapAdd"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"] and not host["Privileged"]
        assert host["RestartPolicy"]["Name"] == "unless-stopped"
        assert host["LogConfig"] == {"Type": "local", "Config": {"max-file": "5", "max-size": "10m"}}
        assert host["ShmSize"] >= 256 << 20 and config["Config"]["StopTimeout"] == 120
        assert host["Memory"] == 1 << 30
        assert config["Config"]["User"] == "1001:0"
        assert pair.exec(node, "id", "-u").ok().out.strip() == "1001"
        assert {b["HostIp"] for bs in host["PortBindings"].values() for b in bs} == {"127.0.0.1"}
        pair.exec(node, "touch", "/etc/here").fails("read-only", code=1)
        other = REPLICA if node == MASTER else MASTER
        pair.exec(node, "touch", f"/siblings/{other}/here").fails("read-only", code=1)
        pair.exec(node, "test", "-r", f"/siblings/{other}/data/PG_VERSION").ok()


def test_process_one_is_the_guard(pair):
    for node in NODES:
        assert pair.exec(node, "cat", "/proc/1/comm").ok().out.strip() == "pgduet-guard"


# Not those of `docker exec` and of health checks, to which the engine gives its own environment.
SHOW_PROCESSES = r"""
for p in /proc/[0-9]*; do
    case $(cat $p/comm 2>/dev/null) in
    pgduet-guard | postgres) ;;
    pgduet) tr '\0' ' ' <$p/cmdline | grep -q ' agent ' || continue ;;
    *) continue ;;
    esac
    cat $p/cmdline $p/environ
done
"""


def test_no_secret_in_a_process(pair):
    """Neither in arguments nor in environments, that of process 1 included."""
    for node in NODES:
        shown = pair.exec(node, "sh", "-c", SHOW_PROCESSES).out
        assert "/pgduet-guard\0" in shown and "\0agent\0" in shown and "/postgres\0-D" in shown
        assert not [name for name, value in pair.passwords.items() if value in shown], node
    assert not [name for name, value in pair.passwords.items() if value in pair.logs()]


def test_psql_pg_isready_and_pgduet_need_no_password(pair):
    for node in NODES:
        assert pair.exec(node, "psql", "-U", "postgres", "-Atc", "SELECT 1").ok().out == "1\n"
        assert pair.exec(node, "psql", "-U", "app_user", "-d", "myapp", "-Atc", "SELECT current_user").ok().out == \
            "app_user\n"
        assert pair.exec(node, "pg_isready", "-U", "postgres").ok()
        assert pair.exec(node, "pgduet", "psql", "--", "-Atc", "SELECT pg_is_in_recovery()").ok().out == "f\n"
        assert pair.exec(node, "pgduet", "status").ok()
        assert docker("exec", "--user", "0:0", pair.container(node), "psql", "-U", "postgres", "-Atc",
                      "SELECT 1").ok().out == "1\n"


@pytest.mark.parametrize("node,answers", [
    (MASTER, {"alive": 0, "ready": 0, "primary": 0, "replica": 1}),
    (REPLICA, {"alive": 0, "ready": 0, "primary": 1, "replica": 0}),
])
def test_probes(pair, node, answers):
    for question, code in answers.items():
        assert pair.exec(node, "pgduet", "health", question).code == code, question


def test_commands_of_the_engine_are_named(pair):
    pair.exec(MASTER, "pgduet", "up").fails("docker compose up -d", code=1)
    pair.exec(MASTER, "pgduet", "down").fails("docker compose stop", code=1)
    pair.exec(MASTER, "pgduet", "config", "set", "work_mem", "8MB").fails("docker compose up -d", code=1)


def test_errors_are_in_the_engines_log_too(pair):
    pair.exec(MASTER, "psql", "-U", "postgres", "-c", "SELECT 1 / 0").fails("division by zero")
    wait_until(lambda: "division by zero" in pair.logs(MASTER), "the error in docker compose logs")
    assert [path for path in (pair.dir / "logs/master").glob("postgresql-*.log")
            if "division by zero" in path.read_text()]


# -- deaths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("node", NODES)
def test_docker_kill(deployment, node):
    d = started(deployment)
    d.write("before")
    d.wait_rows("before")
    docker("kill", d.container(node)).ok()
    other = REPLICA if node == MASTER else MASTER
    assert d.rows(other) == ["before"]
    if node == MASTER:
        hold_true(lambda: not d.health(REPLICA, "primary"), "the replica is nobody's primary", 3)
        assert d.docker_health(REPLICA) == "healthy"
    else:
        d.write("meanwhile")
    d.up().wait_streams()
    d.write("after")
    d.wait_rows(*["before", "after"] + (["meanwhile"] if node == REPLICA else []))


@pytest.mark.parametrize("node", NODES)
def test_a_guard_that_dies_is_started_by_the_engine(deployment, node):
    d = started(deployment)
    d.write("before")
    os.kill(int(inspect(d.container(node), "{{.State.Pid}}")), signal.SIGKILL)
    wait_until(lambda: int(inspect(d.container(node), "{{.RestartCount}}")) == 1, "the engine to restart it")
    d.wait_streams()
    d.write("after")
    d.wait_rows("before", "after")


def test_a_killed_server_is_restarted_inside(deployment):
    d = started(deployment)
    d.write("before")
    pid = d.exec(MASTER, "head", "-n", "1", f"{DATA}/postmaster.pid").ok().out.strip()
    d.exec(MASTER, "kill", "-9", pid).ok()
    wait_until(lambda: d.exec(MASTER, "head", "-n", "1", f"{DATA}/postmaster.pid").out.strip() not in ("", pid),
               "another server")
    d.wait_streams()
    assert inspect(d.container(MASTER), "{{.RestartCount}}") == "0"
    d.write("after")
    d.wait_rows("before", "after")


# -- orders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(MASTER, REPLICA), (REPLICA, MASTER)], ids=["master-first", "replica-first"])
def test_stop_and_start_in_any_order(deployment, order):
    """The last holder leads; a replica that is alone waits for it, however long."""
    d = started(deployment)
    d.write("before")
    d.wait_rows("before")
    for node in reversed(order):
        d.compose("stop", node).ok()
        assert inspect(d.container(node), "{{.State.ExitCode}}") == "0"
    d.compose("start", order[0]).ok()
    wait_until(lambda: d.health(order[0], "ready"), f"{order[0]} to serve alone")
    if order[0] == REPLICA:
        hold_true(lambda: not d.health(REPLICA, "primary"), "the replica waits for the primary", 3)
        assert d.rows(REPLICA) == ["before"]
    d.compose("start", order[1]).ok()
    d.wait_streams()
    d.write("after")
    d.wait_rows("before", "after")


def test_a_replica_promoted_by_hand_is_stopped(deployment):
    """Two primaries never both take writes; the page says how it comes back."""
    d = started(deployment)
    d.exec(REPLICA, "touch", "/tmp/pg_failover_trigger").ok()
    hold_true(lambda: d.health(REPLICA, "replica"), "the trigger file of old has no effect", 1)
    d.exec(REPLICA, "pg_ctl", "promote")
    wait_until(lambda: d.node(REPLICA)["state"] == "failed", "the second primary to be stopped")
    assert d.health(MASTER, "primary")
    d.write("after")
    d.shell(f"docker compose stop {REPLICA}\n"
            f"docker compose run --rm --no-deps --entrypoint mv {REPLICA} {DATA} {DATA}.old\n"
            f"docker compose start {REPLICA}\n").ok()
    d.wait_streams(60)
    d.wait_rows("after")


def test_synchronous_with_another_password(deployment):
    """What the replica needs to connect is changed without waiting for the replica."""
    d = deployment
    d.append("config/master-conf/postgresql.conf", "synchronous_standby_names = '\"postgres-replica\"'\n")
    started(d)
    wait_until(lambda: d.psql(MASTER, "SELECT sync_state FROM pg_stat_replication") == "sync", "a synchronous replica")
    d.passwords["POSTGRES_REPLICATION_PASSWORD"] = "another-good-password-for-replication"
    d.write_env()
    d.up().wait_streams()
    d.write("row")
    d.wait_rows("row")


@pytest.mark.parametrize("preset,buffers", [("medium", "1GB"), ("large", "4GB"), ("xlarge", "8GB")])
def test_memory_presets(make_deployment, preset, buffers):
    """Sizes of the page's table, on whatever machine: nothing of it is touched before it is needed."""
    d = make_deployment(settings={"PGDUET_MEMORY": preset, "POSTGRES_MEMORY_LIMIT": "0"})
    d.compose("up", "-d", MASTER).ok()
    fits = "needs" not in wait_until(lambda: "needs" in d.logs(MASTER) and d.logs(MASTER)
                                     or d.health(MASTER, "ready") and "ready", f"{preset} to run or to be refused")
    if fits:
        assert d.psql(MASTER, "SHOW shared_buffers") == buffers
    else:
        assert re.search(rf"memory = {preset} needs .* and this container has", d.logs(MASTER))


def test_stop_is_a_fast_and_clean_shutdown(deployment):
    """With a client connected, on whose leaving a smart shutdown would wait."""
    d = started(deployment)
    client = d.app(MASTER)
    query(client, "SELECT 1")
    for node, sig in ((MASTER, "SIGTERM"), (REPLICA, "SIGINT")):
        docker("kill", "--signal", sig, d.container(node)).ok()
        wait_until(lambda: not is_running(d.container(node)), f"{node} to end")
        assert inspect(d.container(node), "{{.State.ExitCode}}") == "0"
        logs = (d.dir / "logs" / ("master" if node == MASTER else "replica")).glob("*.log")
        text = "".join(path.read_text() for path in logs)
        assert "received fast shutdown request" in text and "database system is shut down" in text


# -- what is made anew ----------------------------------------------------------------------------


def test_down_and_up_keep_the_data(deployment):
    d = started(deployment)
    d.write("before")
    before = d.system_identifier()
    d.compose("down").ok()
    assert docker("ps", "-aq", "--filter", f"name={d.tag}").out == ""
    d.up().wait_streams()
    assert d.system_identifier() == before
    d.wait_rows("before")


def test_an_image_made_anew(deployment, sandbox):
    d = started(deployment)
    d.write("before")
    before = d.system_identifier()
    d.env["PGDUET_IMAGE"] = sandbox.image(f"FROM {IMAGE}\nLABEL another=one\n")
    d.up().wait_streams()
    for node in NODES:
        assert inspect(d.container(node), '{{index .Config.Labels "another"}}') == "one"
    assert d.system_identifier() == before
    d.wait_rows("before")
    d.compose("down").ok()


def test_addresses_change(deployment):
    """Nodes know each other by name, which the engine answers with another address after each start."""
    d = started(deployment)
    d.write("before")

    def address(node):
        networks = docker("inspect", d.container(node)).ok().json[0]["NetworkSettings"]["Networks"]
        return networks[d.network]["IPAddress"]

    before = {node: address(node) for node in NODES}
    d.compose("stop").ok()
    # others take the old addresses meanwhile
    others = [f"{d.tag}-other-{i}" for i in range(2)]
    for other in others:
        docker("run", "-d", "--name", other, "--network", d.network, "--entrypoint", "sleep", IMAGE, "600").ok()
    d.compose("start").ok()
    d.wait_streams()
    assert not set(before.values()) & {address(node) for node in NODES}
    d.write("after")
    d.wait_rows("before", "after")


def test_an_address_changes_under_a_running_pair(deployment):
    for config in ("master-conf", "slave-conf"):
        deployment.append(f"config/{config}/postgresql.conf", "wal_sender_timeout = 5s\nwal_receiver_timeout = 5s\n")
    d = started(deployment)
    docker("network", "disconnect", d.network, d.container(MASTER)).ok()
    docker("run", "-d", "--name", f"{d.tag}-other", "--network", d.network, "--entrypoint", "sleep", IMAGE, "600").ok()
    docker("network", "connect", "--alias", MASTER, d.network, d.container(MASTER)).ok()
    d.psql(MASTER, "CREATE TABLE later (value text); INSERT INTO later VALUES ('after')", dbname="myapp")
    wait_until(lambda: d.psql(REPLICA, "SELECT value FROM later", dbname="myapp") == "after",
               "the row to arrive by the new address", 90)


# -- volumes --------------------------------------------------------------------------------------


def test_a_lost_replica_volume_is_filled_again(deployment):
    d = started(deployment)
    d.write("before")
    d.compose("rm", "-sf", REPLICA).ok()
    d.compose("rm", "-sf", MASTER).ok()
    docker("volume", "rm", d.volume(f"{REPLICA}-data")).ok()
    d.up().wait_streams()
    d.wait_rows("before")


def test_a_lost_primary_volume_is_not_initialised(deployment):
    """The replica has the only copy left: an empty primary beside it would be the end of it."""
    d = started(deployment)
    d.write("before")
    d.wait_rows("before")
    before = d.system_identifier()
    d.compose("down").ok()
    docker("volume", "rm", d.volume(f"{MASTER}-data")).ok()
    d.compose("up", "-d")
    wait_until(lambda: "data" in d.logs(MASTER) and not d.health(MASTER, "alive"), "the primary to say what is wrong")
    hold_true(lambda: not d.health(MASTER, "ready"), "nothing is made anew", 3)
    assert re.search(r"postgres-master.*(lost|no data|gone|missing)", d.logs(MASTER)), d.logs(MASTER)
    assert identifier_on_disk(d, REPLICA) == before
    assert d.rows(REPLICA) == ["before"]


def test_a_lost_store_is_not_made_anew_over_data(deployment):
    d = started(deployment)
    before = d.system_identifier()
    d.compose("down").ok()
    docker("volume", "rm", d.volume("store")).ok()
    d.compose("up", "-d")
    for node in NODES:
        wait_until(lambda: "holds data that this deployment did not make" in d.logs(node), f"{node} to refuse")
        assert not d.health(node, "ready")
    d.compose("down").ok()
    for node in NODES:
        assert identifier_on_disk(d, node) == before


def test_a_second_container_of_a_node_is_refused(pair):
    result = pair.compose("run", "--rm", "--no-deps", "--name", f"{pair.tag}-second", MASTER)
    result.fails("guard|runs already|another container")
    assert pair.wait_streams()


def test_other_folder_with_the_same_volumes_is_refused(pair):
    """As above, by hand and with another name: the lock is in the volume of the store."""
    env = {"PGDUET_NODES": f"{MASTER} {REPLICA}", "PGDUET_NODE": REPLICA, "POSTGRES_USER": "app_user", **pair.passwords}
    options = [word for name, value in env.items() for word in ("-e", f"{name}={value}")]
    result = docker("run", "--rm", *options, "--network", pair.network,
                    "-v", f"{pair.volume('store')}:/pgduet/store",
                    "-v", f"{pair.volume(f'{REPLICA}-data')}:/bitnami/postgresql", IMAGE)
    result.fails("guard|runs already|another container")
    assert pair.wait_streams()


def as_user(user, command, cwd):
    return run(["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "sh", "-c", command], cwd=cwd)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users, which takes root")
@pytest.mark.parametrize("config_mode", [0o755, 0o700])
def test_the_folder_stays_its_owners(deployment, config_mode):
    """Who owns it reads the logs and works in certs/ without sudo, also after a second start; nobody else does."""
    d = deployment
    (d.dir / "config").chmod(config_mode)
    run(["chown", "-R", "4000:4000", d.dir]).ok()
    for _ in range(2):
        d.up().wait_streams()
        as_user(4000, "cat logs/master/*.log logs/replica/*.log", d.dir).ok().has("database system is ready")
        as_user(4000, "echo >>config/pg_hba.conf; openssl genrsa -out certs/ca.key 2048; rm -f certs/ca.key", d.dir).ok()
        assert as_user(4001, "cat logs/master/*.log", d.dir).code != 0
        d.compose("down").ok()


def test_two_folders_share_nothing(make_deployment):
    """As `init --docker` writes them: without a name from outside, only the .env tells them apart."""
    places = [make_deployment() for _ in range(2)]
    for d in places:
        del d.env["COMPOSE_PROJECT_NAME"]
        d.base.chmod(0o777)
        run(["docker", "run", "--rm", "-v", f"{d.base}:/v", "--entrypoint", "pgduet", IMAGE, "init", "--docker",
             "/v/same"]).ok()
        d.dir = d.base / "same"
        d.make_private()
        d.env["POSTGRES_CPUS"] = "0"
        d.passwords = {name: d.read_env()[name] for name in d.passwords}
        d.up().wait_streams()
    assert places[0].system_identifier() != places[1].system_identifier()
    for d in places:
        assert query(d.app(MASTER), "SELECT 1") == [(1,)]


def test_the_folder_that_init_writes_for_three_nodes(deployment):
    d = deployment
    d.base.chmod(0o777)  # for the user of the container
    run(["docker", "run", "--rm", "-v", f"{d.base}:/v", "--entrypoint", "pgduet", IMAGE, "init", "--docker",
         "/v/three", "--nodes", "3"]).ok()
    d.dir = d.base / "three"
    d.make_private()
    d.env["POSTGRES_REPLICA_2_PORT"] = str(d.ports.first + 2)
    d.env["POSTGRES_CPUS"] = "0"
    d.up()
    third = f"{REPLICA}-2"

    def all_stream():
        nodes = {node["name"]: (node["role"], node["replication"]) for node in d.status()["nodes"]}
        return nodes == {MASTER: ("primary", None), REPLICA: ("replica", "streaming"), third: ("replica", "streaming")}

    wait_until(all_stream, "a primary and two replicas that stream")
    assert {(d.dir / "logs" / name).is_dir() for name in ("master", "replica", "replica-2")} == {True}
    d.exec(third, "test", "-r", f"/siblings/{REPLICA}/data/PG_VERSION").ok()
    d.passwords = {name: d.read_env()[name] for name in d.passwords}
    d.connect(third, "app_user", "POSTGRES_PASSWORD", port=d.ports.first + 2)
