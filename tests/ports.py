"""Ports that are free and stay ours, beside other tests and other runs."""

import socket


class NeighbouringPorts:
    """`count` neighbouring free ports from the first of the candidates that has them, ours until released.

    An abstract socket named after the block keeps other workers and other test runs away, whoever
    their user is, and vanishes with the process.
    """

    def __init__(self, kind, candidates, count):
        for port in candidates:
            self._claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                self._claim.bind(f"\0pgduet-{kind}-ports-{port}")
                if all(is_free(port + i) for i in range(count)):
                    self.first = port
                    return
            except OSError:
                pass
            self._claim.close()
        raise RuntimeError(f"no block of {count} free ports for the {kind} tests")

    def release(self):
        self._claim.close()


def is_free(port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
