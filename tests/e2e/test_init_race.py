"""Two `init` at once: one makes the deployment, the other refuses and spoils nothing."""

import subprocess

import pytest

from utils import IS_ROOT, clean_environment, snapshot

TRIES = 10


def names(directory):
    """Files of a deployment, without the contents, which differ by their secrets and nonces."""
    return {name: (mode, content is None) for name, (mode, _, content)
            in snapshot(directory).items()}


def finished(process):
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


@pytest.mark.parametrize("place", ["new", "empty"])
def test_exactly_one_of_two_succeeds(base, pgduet, place):
    reference = base / "reference"
    command = [str(pgduet), "init", "--memory", "256MB"]
    subprocess.run([*command, str(reference)], check=True, capture_output=True, timeout=20)
    for i in range(TRIES):
        directory = base / f"try{i}"
        if place == "empty":
            directory.mkdir(mode=0o755)
        both = [subprocess.Popen([*command, str(directory), "--port", str(port)], text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                 env=clean_environment())
                for port in (21000, 22000)]
        results = [finished(process) for process in both]
        assert sorted(code for code, _, _ in results) == [0, 1], results
        won = [code for code, _, _ in results].index(0)
        assert "pgduet: " in results[1 - won][2], results
        assert names(directory) == names(reference), f"try {i} left half a deployment: {results}"
        conf = (directory / "pgduet.conf").read_text()
        mine, others = ("21000", "22000") if won == 0 else ("22000", "21000")
        assert f"port = {mine}" in conf and others not in conf, "a mixture of both"
        assert (directory / ".env").read_text().count("POSTGRES_ADMIN_PASSWORD=") == 1
        repair = subprocess.run([str(pgduet), "init", str(directory), "--repair-locks"],
                                capture_output=True, text=True, timeout=20)
        assert repair.returncode == 0 and "nothing to do" in repair.stdout, repair
    assert not IS_ROOT or reference.stat().st_uid != 0
