"""Fixtures: an engine to test on, private deployments and containers, and what a failure shows."""

import os

import pytest

from utils import Deployment, Sandbox, obstacle

_living = []  # deployments and sandboxes of the running tests, for failure reports


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Tests that share a deployment run in one worker, in order; all others wherever there is room."""
    for item in items:
        if {"pair", "page", "original"} & set(item.fixturenames):
            item.add_marker(pytest.mark.xdist_group(item.module.__name__))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed and call.when in ("setup", "call"):
        for place in _living:
            report.sections.append((place.tag, place.report()))


@pytest.fixture(scope="session", autouse=True)
def engine():
    reason = obstacle()
    if reason is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"the deployment must be tested in CI: {reason}", pytrace=False)
    pytest.skip(reason)


class Factory:
    """Makes deployments or sandboxes and takes them away again."""

    def __init__(self, kind):
        self.kind = kind
        self.made = []

    def __call__(self, **options):
        place = self.kind(**options)
        self.made.append(place)
        _living.append(place)
        return place

    def destroy(self):
        for place in self.made:
            try:
                place.destroy()
            finally:
                _living.remove(place)


@pytest.fixture
def make_deployment():
    factory = Factory(Deployment)
    yield factory
    factory.destroy()


@pytest.fixture(scope="module")
def make_module_deployment():
    """For a deployment that the tests of a module share."""
    factory = Factory(Deployment)
    yield factory
    factory.destroy()


@pytest.fixture
def deployment(make_deployment):
    """A private copy of the folder with a good .env, not started; the test may damage it."""
    return make_deployment()


@pytest.fixture(scope="module")
def pair(make_module_deployment):
    """A running primary and replica that the tests of a module share: leave it as you found it."""
    return make_module_deployment().up().wait_streams()


@pytest.fixture
def sandbox():
    """Containers of their own."""
    factory = Factory(Sandbox)
    yield factory()
    factory.destroy()
