"""Where a redirect of a mirror may lead, in a network namespace where the loopback has a public address as well."""

import os
import subprocess
import sys

import pytest
from paths import REPO

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")

PUBLIC, PRIVATE = "8.8.4.4", "192.168.7.7"


def redirected(source: str, target: str) -> list[str]:
    """What a fetch said, and how many connections the server at the target has seen."""
    program = REPO / "tests" / "redirect_program.py"
    return subprocess.run(
        ["unshare", "--net", sys.executable, str(program), source, target],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
    ).stdout.splitlines()


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.9.9", PRIVATE, "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433"]
)
def test_a_redirect_from_a_public_mirror_to_this_host_or_its_lan_is_refused(host: str) -> None:
    said, seen = redirected(PUBLIC, f"http://{host}:PORT/")
    assert "an address of this host or its LAN; that is not followed" in said
    assert seen == "0"


def test_a_redirect_from_one_public_address_to_another_is_followed() -> None:
    assert redirected(PUBLIC, f"http://{PUBLIC}:PORT/") == ["list", "1"]


@pytest.mark.parametrize("source", ["127.0.0.1", PRIVATE])
def test_a_source_that_is_inside_itself_may_lead_inside(source: str) -> None:
    assert redirected(source, f"http://{PRIVATE}:PORT/") == ["list", "1"]
