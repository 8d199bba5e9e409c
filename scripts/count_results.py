#!/usr/bin/python3
"""Add up the results of all test runs and name what was skipped.

    count_results.py LABEL=FILE...

FILE is pytest's JUnit XML, Meson's testlog.json (with cmocka's output in it), or a .skip file with
the reason why a whole run was skipped. A missing or broken file counts as one failure. The last
line is "N passed, N failed, N skipped"; the exit code is 1 when something failed or nothing ran.
"""

import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path


class Count:
    def __init__(self):
        self.passed = 0
        self.failures = []
        self.skips = []

    def add(self, other):
        self.passed += other.passed
        self.failures += other.failures
        self.skips += other.skips

    def line(self):
        return (
            f"{self.passed} passed, {len(self.failures)} failed, {len(self.skips)} skipped"
        )


def count_junit(path):
    count = Count()
    for case in ET.parse(path).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            count.failures.append(name)
        elif skipped is not None:
            count.skips.append(f"{name}: {skipped.get('message') or 'no reason given'}")
        else:
            count.passed += 1
    return count


def count_cmocka(name, output, status):
    count = Count()
    count.passed = sum(int(n) for n in re.findall(r"\[  PASSED  \] (\d+) test", output))
    listed = re.findall(r"^\[  (FAILED|ERROR|SKIPPED) +\] (\S+)$", output, re.M)
    count.failures = sorted({f"{name}: {test}" for kind, test in listed if kind != "SKIPPED"})
    count.skips = sorted(
        {f"{name}: {test}: skipped by the test" for kind, test in listed if kind == "SKIPPED"}
    )
    if status != 0 and not count.failures:
        count.failures.append(f"{name}: ended with status {status}")
    if status == 0 and count.passed + len(count.skips) == 0:
        count.passed = 1
    return count


def count_meson(path):
    count = Count()
    for line in path.read_text().splitlines():
        test = json.loads(line)
        name = test["name"]
        if test["result"] == "SKIP":
            count.skips.append(f"{name}: skipped by the test")
            continue
        output = (test.get("stdout") or "") + "\n" + (test.get("stderr") or "")
        status = test["returncode"]
        if test["result"] not in ("OK", "EXPECTEDFAIL") and status == 0:
            status = test["result"]
        count.add(count_cmocka(name, output, status))
    return count


def count_file(path):
    count = Count()
    if path.suffix == ".skip":
        count.skips.append(path.read_text().strip())
        return count
    try:
        return count_meson(path) if path.suffix == ".json" else count_junit(path)
    except (OSError, ValueError, KeyError, ET.ParseError) as e:
        count.failures.append(f"no results: {e}")
    return count


def main(arguments):
    total = Count()
    for argument in arguments:
        label, _, path = argument.partition("=")
        count = count_file(Path(path))
        print(f"{label}: {count.line()}")
        for name in count.failures:
            print(f"  failed: {name}")
        for name in count.skips:
            print(f"  skipped: {name}")
        total.add(count)
    print(total.line())
    return 1 if total.failures or total.passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
