"""Each changing command of ``bootstrap`` made to fail in turn: it says which, and the host is as it was before."""

import os
import shutil
import sys
from collections import Counter

import pytest
from given_back import BOOTSTRAP, everything, own_files
from lab import BLOCKED, TUNNEL, Lab

pytestmark = pytest.mark.e2e

#: Stands before a program in the search path. The command in /run/fail/line fails when it comes for the /run/fail/nth time,
#: once: on the way back the same command has to work.
SHIM = """#!/bin/sh
if [ "{program} $*" = "$(cat /run/fail/line)" ]; then
    echo >>/run/fail/seen
    if [ "$(wc -l </run/fail/seen)" -eq "$(cat /run/fail/nth)" ]; then
        echo "told to fail" >&2
        exit 4
    fi
fi
exec {real} "$@"
"""


def changing_commands(backend: str) -> list[str]:
    with Lab() as lab:
        lab.configure(backend, "split")
        stderr = lab.gateway.gfwtools(*BOOTSTRAP).stderr
        assert lab.open(lab.client, "blocked.example") == TUNNEL
    return [line.removeprefix("+ ") for line in stderr.splitlines() if line.startswith("+ ")]


def put_shims(lab: Lab, programs: set[str]) -> None:
    for program in programs:
        real = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        assert real
        lab.gateway.write(f"/run/fail/bin/{program}", SHIM.format(program=program, real=real), 0o755)


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_each_step_made_to_fail_in_turn_leaves_the_host_as_it_was(backend: str) -> None:
    commands = changing_commands(backend)
    assert len(commands) >= 8
    with Lab() as lab:
        lab.configure(backend, "split")
        put_shims(lab, {command.split()[0] for command in commands})
        before, before_ours = everything(lab), own_files(lab)
        seen: Counter[str] = Counter()
        for command in commands:
            seen[command] += 1
            step = f"{command}, time {seen[command]}"
            lab.gateway.write("/run/fail/line", command)
            lab.gateway.write("/run/fail/nth", str(seen[command]))
            lab.gateway.write("/run/fail/seen", "")
            done = lab.gateway.run_with("/run/fail/bin", sys.executable, "-m", "gfwtools", *BOOTSTRAP, code=None)
            assert done.returncode == 1, step
            assert "told to fail" in done.stderr, step
            assert command in done.stderr, step
            assert "the host is as it was before" in done.stderr, step
            assert everything(lab) == before, step
            assert own_files(lab) == before_ours, step
        # And nothing of it stands in the way of the run that goes well.
        lab.gateway.gfwtools(*BOOTSTRAP)
        assert lab.open(lab.client, "blocked.example") == TUNNEL
        assert lab.visit(lab.gateway, BLOCKED) == TUNNEL
