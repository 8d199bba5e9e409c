"""Fixtures: private copies of the programs, directories and ports, and what a failure shows."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from utils import BINARIES, Cluster

REPOSITORY = Path(__file__).resolve().parents[2]
_living = []  # clusters of the running tests, for failure reports


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Tests that share a cluster run in one worker, all others wherever there is room."""
    for item in items:
        shared = {"pair", "single"} & set(item.fixturenames)
        if shared:
            group = f"{item.module.__name__}-{'-'.join(sorted(shared))}"
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed and call.when in ("setup", "call"):
        for cluster in _living:
            report.sections.append((f"cluster {cluster.dir}", cluster.report()))


@pytest.fixture(scope="session")
def pgduet():
    """The program, copied to where every user can run it (the clone may be in a private place)."""
    build = Path(os.environ.get("PGDUET_BUILD", REPOSITORY / "build"))
    missing = [name for name in BINARIES if not (build / name).exists()]
    if missing:
        pytest.exit(f"{', '.join(missing)} not in {build}: build first, or set PGDUET_BUILD", 2)
    place = Path(tempfile.mkdtemp(prefix="pgduet-e2e-bin-", dir="/tmp"))  # shm may be noexec
    place.chmod(0o755)
    for name in BINARIES:
        shutil.copy(build / name, place / name)
        (place / name).chmod(0o755)
    yield place / "pgduet"
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def base():
    """A private directory that every user can enter (pytest's tmp_path is 0700)."""
    place = make_base()
    yield place
    shutil.rmtree(place, ignore_errors=True)


def roomy(path, gigabytes=4):
    try:
        info = os.statvfs(path)
    except OSError:
        return False
    return os.access(path, os.W_OK) and info.f_bavail * info.f_frsize >= gigabytes << 30


# Killed processes leave the page cache alone, so a disk would add waiting and prove nothing.
BASE = os.environ.get("PGDUET_E2E_DIR") or ("/dev/shm" if roomy("/dev/shm") else "/tmp")


def make_base():
    place = Path(tempfile.mkdtemp(prefix="pgduet-e2e-", dir=BASE))
    place.chmod(0o755)
    return place


class Factory:
    """Makes clusters and takes them away again."""

    def __init__(self, pgduet):
        self.pgduet = pgduet
        self.made = []

    def __call__(self, nodes=2, up=False, init=True, init_args=(), **options):
        cluster = Cluster(make_base(), self.pgduet, nodes=nodes, **options)
        self.made.append(cluster)
        _living.append(cluster)
        if init:
            cluster.init(*init_args)
        if up:
            cluster.up()
        return cluster

    def destroy(self):
        for cluster in self.made:
            try:
                cluster.destroy()
            finally:
                _living.remove(cluster)


@pytest.fixture
def make_cluster(pgduet):
    factory = Factory(pgduet)
    yield factory
    factory.destroy()


@pytest.fixture
def cluster(make_cluster):
    """A primary and a replica, initialised and not started; the test may damage it."""
    return make_cluster()


@pytest.fixture
def fresh_pair(make_cluster):
    """A running primary and replica that the test may damage."""
    return make_cluster(up=True)


@pytest.fixture
def fresh_single(make_cluster):
    """One running node that the test may damage."""
    return make_cluster(nodes=1, up=True)


@pytest.fixture(scope="module")
def pair(pgduet):
    """A running primary and replica that the tests of a module share: leave it as you found it."""
    factory = Factory(pgduet)
    yield factory(up=True)
    factory.destroy()


@pytest.fixture(scope="module")
def single(pgduet):
    """One running node that the tests of a module share: leave it as you found it."""
    factory = Factory(pgduet)
    yield factory(nodes=1, up=True)
    factory.destroy()
