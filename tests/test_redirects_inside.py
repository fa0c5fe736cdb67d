"""Where a redirect of a mirror may lead, in a network namespace where the loopback has a public address as well."""

import os
import subprocess
import sys

import pytest
from paths import REPO

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")

PUBLIC, PRIVATE = "8.8.4.4", "192.168.7.7"


def redirected(source: str, target: str, **environment: str) -> list[str]:
    """What a fetch said, and the addresses at which the server that a redirect leads to was asked."""
    program = REPO / "tests" / "redirect_program.py"
    inherited = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return subprocess.run(
        ["unshare", "--net", "--mount", sys.executable, str(program), source, target],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=inherited | environment,
    ).stdout.splitlines()


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.9.9.9", PRIVATE, "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0.0.0.0", "[::]",
     "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "169.254.169.254", "100.64.0.1", "inside.example"],
)  # fmt: skip
def test_a_redirect_from_a_public_mirror_to_this_host_or_its_lan_is_refused(host: str) -> None:
    said, asked = redirected(PUBLIC, f"http://{host}:PORT/")
    assert "an address of this host or its LAN; that is not followed" in said
    assert not asked


@pytest.mark.parametrize("host", [PUBLIC, "public.example"])
def test_a_redirect_from_one_public_address_to_another_is_followed(host: str) -> None:
    assert redirected(PUBLIC, f"http://{host}:PORT/") == ["list", PUBLIC]


def test_a_name_that_has_another_address_a_moment_later_leads_where_it_was_looked_at() -> None:
    assert redirected(PUBLIC, "http://rebind.example:PORT/") == ["list", PUBLIC]


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "localhost", "nas.lan"])
def test_a_redirect_to_this_host_or_its_lan_is_refused_behind_a_proxy_as_well(host: str) -> None:
    proxy = {"no_proxy": PUBLIC, "http_proxy": "http://127.0.0.1:9"}
    said, asked = redirected(PUBLIC, f"http://{host}:PORT/", **proxy)
    assert "that is not followed" in said
    assert not asked


@pytest.mark.parametrize("source", ["127.0.0.1", PRIVATE])
def test_a_source_that_is_inside_itself_may_lead_inside(source: str) -> None:
    assert redirected(source, f"http://{PRIVATE}:PORT/") == ["list", PRIVATE]
