"""Waiting for what should happen, with a deadline; the tests never sleep for a fixed time."""

import threading
import time

import psycopg2

DEFAULT_DEADLINE = 40.0

_tick = threading.Event()  # never set: a pause that is not a sleep of the whole interpreter


def wait_until(condition, what, deadline=DEFAULT_DEADLINE, interval=0.05):
    """The first true value of condition(); fails naming `what` and the last value or exception.

    Exceptions of the condition count as "not yet": what is waited for may be half there.
    """
    end = time.monotonic() + deadline
    while True:
        try:
            last = condition()
            if last:
                return last
        except (OSError, LookupError, ValueError, psycopg2.Error, AssertionError) as e:
            last = e
        if time.monotonic() >= end:
            raise AssertionError(f"waited {deadline:g} s for {what}; last seen: {last!r}")
        _tick.wait(interval)


def hold_true(condition, what, seconds, interval=0.05):
    """condition() must stay true for that long: for things that must not happen."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert condition(), f"no longer true: {what}"
        _tick.wait(interval)
