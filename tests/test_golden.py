"""What ``update`` and ``export`` write, byte by byte (see golden_files.py for how it is kept, and written anew)."""

import itertools
from pathlib import Path

import pytest
from cli import gfwtools
from golden_files import agree, cases_kept, joined
from paths import FIXTURES

ALLOW = "www.google.com\nmine.example.com\n"
DENY = "blocked.by.me.com\nsub.gstatic.com\n例え.jp\n"
ONE = '[policy.gfwlist]\nsources = ["{list}"]\n'
TWO = """
[policy.gfwlist]
sources = ["{list}"]
seeds = ["91.108.4.0/22", "2001:db8:7::/48"]
upstream = ["8.8.8.8", "2001:4860:4860::8888#5353"]
[policy.work]
sources = ["{golden}"]
granularity = "host"
allow = []
deny = []
upstream = ["10.1.0.53#5300"]
set = "office"
interface = "wg1"
"""
POLICIES = {"list": ONE, "golden": ONE.replace("{list}", "{golden}"), "two": TWO}


def configured(root: Path, policies: str, backend: str, layout: str) -> None:
    etc = root / "etc/gfwtools"
    etc.mkdir(parents=True)
    (etc / "allow.txt").write_text(ALLOW)
    (etc / "deny.txt").write_text(DENY)
    text = POLICIES[policies].format(list=FIXTURES / "list.txt", golden=FIXTURES / "golden.txt")
    (etc / "config.toml").write_text(f'[host]\nbackend = "{backend}"\n[dns]\nlayout = "{layout}"\n{text}')


def written(root: Path) -> dict[str, str]:
    """What a run has written for others to read: neither its own state, which has times, nor the list again."""
    own = {"allow.txt", "deny.txt", "config.toml", "state.json", "lock"}
    return {
        str(path.relative_to(root)): path.read_text().replace(str(root), "")
        for path in root.rglob("*")
        if path.is_file() and path.name not in own and path.suffix != ".list"
    }


UPDATES = list(itertools.product(sorted(POLICIES), ("iptables", "nftables"), ("paired", "split")))
EXPORTS = list(itertools.product(("gfwlist", "work"), ("domains", "dnsmasq", "ipset", "nftables")))


@pytest.mark.parametrize(("policies", "backend", "layout"), UPDATES)
def test_an_update_writes_the_files_that_are_kept(tmp_path: Path, policies: str, backend: str, layout: str) -> None:
    configured(tmp_path, policies, backend, layout)
    gfwtools(tmp_path, "update")
    agree("update", f"{policies}-{backend}-{layout}", joined(written(tmp_path)))


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_an_export_prints_what_is_kept(tmp_path: Path, backend: str) -> None:
    configured(tmp_path, "two", backend, "paired")
    gfwtools(tmp_path, "update")
    printed = {
        f"{policy} as {format}": gfwtools(tmp_path, "export", format, "--policy", policy).stdout
        for policy, format in EXPORTS
    }
    agree("export", backend, joined(printed))


def test_without_any_list_the_starter_list_is_exported_as_kept(tmp_path: Path) -> None:
    agree("export", "starter", gfwtools(tmp_path, "export", "domains").stdout)


def test_every_file_that_is_kept_is_one_that_is_compared() -> None:
    assert cases_kept("update", map("-".join, UPDATES))
    assert cases_kept("export", ("iptables", "nftables", "starter"))
