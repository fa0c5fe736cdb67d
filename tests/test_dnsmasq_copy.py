"""The check of dnsmasq's configuration with new files in it, by the real dnsmasq."""

import os
from pathlib import Path

import pytest
from trees import DEBIAN_SCRIPT, Tree, host

from gfwtools.config.model import Config
from gfwtools.dnsmasq.check import check_configuration
from gfwtools.errors import ResolverError
from gfwtools.system.commands import System

pytestmark = pytest.mark.e2e

MAIN = "conf-dir=/etc/dnsmasq.d/,*.conf\n"
#: dnsmasq refuses a second one: it is read once, or the check fails.
ONCE = {"etc/dnsmasq.d/once.conf": "cache-size=300\n"}
NEW = b"server=/blocked.example/192.0.2.1\n"


def check(config: Config, data: bytes = NEW, name: str = "gfwlist.conf") -> str:
    """What the check says against the list ``data``; nothing where it takes it. The host stays as it is."""
    before = sorted((str(path), os.lstat(path).st_mtime_ns) for path in config.root.rglob("*"))
    try:
        check_configuration(config, {config.paths.at(config.dns.conf_dir) / name: data}, System())
    except ResolverError as error:
        return str(error)
    finally:
        assert sorted((str(path), os.lstat(path).st_mtime_ns) for path in config.root.rglob("*")) == before
    return ""


FORMS: list[Tree] = [
    {},
    {"etc/dnsmasq.conf": MAIN},
    {"etc/dnsmasq.conf": "conf-dir=/etc/dnsmasq.d"},
    {"etc/dnsmasq.conf": 'conf-dir="/etc/dnsmasq.d"\n'},
    {"etc/dnsmasq.conf": "conf-dir=/etc/dnsmasq.d//\n"},
    {"etc/dnsmasq.conf": "conf-dir=/etc/./dnsmasq.d/,*.conf\n"},
    {"etc/dnsmasq.conf": "conf-dir=//etc/../etc/dnsmasq.d # all\r\n"},
    {"etc/dnsmasq.conf": f" conf-dir = /etc/dnsmasq.d , *.conf\n{MAIN}"},
    {"etc/dnsmasq.conf": "conf-dir=/etc/link\nconf-dir=/etc/dnsmasq.d\n", "etc/link": "-> dnsmasq.d"},
    {"etc/dnsmasq.conf": "conf-file=/etc/dm.more\n", "etc/dm.more": MAIN},
    {"etc/dnsmasq.conf": 'conf-file="/etc/d#, m" # x\n', "etc/d#, m": MAIN},
    {"etc/dnsmasq.conf": "conf-dir=/etc/other.d\n", "etc/other.d/a": MAIN},
    {"etc/dnsmasq.conf": f"{MAIN}conf-file=/etc/dnsmasq.d/once.conf\n"},
    {"etc/dnsmasq.conf": f"conf-file=/etc/dnsmasq.conf\n{MAIN}", "etc/dnsmasq.d/a.conf": "conf-file=/etc/dnsmasq.conf\n"},
    {"etc/dnsmasq.conf": MAIN, "etc/dnsmasq.d/alias.conf": "-> once.conf"},
    {"etc/dnsmasq.conf": MAIN, "etc/dnsmasq.d/sub/ux": "nonsense\n", "etc/dnsmasq.d/a.conf": "conf-dir=/etc/dnsmasq.d/sub,x\n"},
    {**DEBIAN_SCRIPT, "etc/default/dnsmasq": "CONFIG_DIR=/etc/dnsmasq.d,.dpkg-dist,.dpkg-old,.dpkg-new\n"},
    {**DEBIAN_SCRIPT, "etc/default/dnsmasq": "CONFIG_DIR=/etc/dnsmasq.d,.dpkg-old\n", "etc/dnsmasq.conf": MAIN},
]  # fmt: skip


@pytest.mark.parametrize("tree", FORMS)
def test_in_whatever_form_the_folder_is_named_its_files_are_read_once(tmp_path: Path, tree: Tree) -> None:
    assert check(host(tmp_path, ONCE | tree)) == ""


@pytest.mark.parametrize("tree", FORMS)
def test_in_whatever_form_the_folder_is_named_a_broken_new_file_is_found(tmp_path: Path, tree: Tree) -> None:
    problem = check(host(tmp_path, ONCE | tree), b"nonsense\n")
    assert problem == (
        "dnsmasq would not start with the new files: dnsmasq: bad option at line 1 of /etc/dnsmasq.d/gfwlist.conf"
    )


@pytest.mark.parametrize("tree", FORMS)
def test_in_whatever_form_the_folder_is_named_a_broken_old_file_is_found(tmp_path: Path, tree: Tree) -> None:
    problem = check(host(tmp_path, ONCE | tree | {"etc/dnsmasq.d/user.conf": "domain=lan\nnonsense\n"}))
    assert problem == (
        "dnsmasq's configuration was broken before: dnsmasq: bad option at line 2 of /etc/dnsmasq.d/user.conf; "
        "fix that, then run this again"
    )


@pytest.mark.parametrize(
    ("tree", "problem"),
    [
        (
            {"etc/dnsmasq.conf": MAIN, "etc/dnsmasq.d/x.conf": "-> /etc/none"},
            "cannot access /etc/dnsmasq.d/x.conf: No such file or directory",
        ),
        (
            {"etc/dnsmasq.conf": MAIN, "etc/dnsmasq.d/x.conf": "-> x.conf"},
            "cannot access /etc/dnsmasq.d/x.conf: Too many levels of symbolic links",
        ),
        (
            {"etc/dnsmasq.conf": "conf-dir=/etc/dnsmasq.d\n", "etc/dnsmasq.d/x.dpkg-old": "nonsense\n"},
            "bad option at line 1 of /etc/dnsmasq.d/x.dpkg-old",
        ),
        ({"etc/dnsmasq.conf": f"{MAIN}conf-file=/etc/more\n"}, "cannot read /etc/more: No such file or directory"),
        (
            {"etc/dnsmasq.conf": f"{MAIN}conf-file=/etc/more\n", "etc/more": "-> more"},
            "cannot read /etc/more: Too many levels of symbolic links",
        ),
        ({"etc/dnsmasq.conf": f"{MAIN}conf-dir=/etc/o.d\n"}, "cannot access directory /etc/o.d: No such file or directory"),
        ({"etc/dnsmasq.conf": f"{MAIN}conf-dir=/etc/o\n", "etc/o": ""}, "cannot access directory /etc/o: Not a directory"),
        ({"etc/dnsmasq.conf": f"{MAIN}nonsense\n"}, "bad option at line 2 of /etc/dnsmasq.conf"),
        ({"etc/dnsmasq.conf": f'{MAIN}conf-file="/etc/more\n'}, 'missing " at line 2 of /etc/dnsmasq.conf'),
        ({"etc/dnsmasq.conf": "-> dnsmasq.conf"}, "cannot read /etc/dnsmasq.conf: Too many levels of symbolic links"),
        (
            {"etc/dnsmasq.conf": f"cache-size=1\n{MAIN}"},
            "illegal repeated keyword at line 1 of /etc/dnsmasq.d/once.conf",
        ),
    ],
)  # fmt: skip
def test_what_dnsmasq_would_not_start_with_was_broken_before(tmp_path: Path, tree: Tree, problem: str) -> None:
    assert check(host(tmp_path, ONCE | tree)) == (
        f"dnsmasq's configuration was broken before: dnsmasq: {problem}; fix that, then run this again"
    )


@pytest.mark.parametrize(
    "tree",
    [
        {"etc/dnsmasq.conf": MAIN, "etc/dnsmasq.d/x": "-> none"},
        {"etc/dnsmasq.conf": MAIN, "etc/dnsmasq.d/x.dpkg-old": "nonsense\n"},
        {"etc/dnsmasq.conf": "conf-dir=/etc/dnsmasq.d,.dpkg-old\n", "etc/dnsmasq.d/x.dpkg-old": "nonsense\n"},
        {"etc/dnsmasq.conf": "conf-dir=/etc/dnsmasq.d\n", "etc/dnsmasq.d/.x": "nonsense\n", "etc/dnsmasq.d/x~": "-> none"},
        {"etc/dnsmasq.d/README": "nonsense\n"},
        {"etc/dnsmasq.conf": "-> none"},
    ],
)  # fmt: skip
def test_what_dnsmasq_passes_over_is_no_reason_to_refuse(tmp_path: Path, tree: Tree) -> None:
    assert check(host(tmp_path, ONCE | tree)) == ""


def test_a_broken_file_that_the_new_one_replaces_is_no_reason_to_refuse(tmp_path: Path) -> None:
    for number, old in enumerate(("nonsense\n", "-> gfwlist.conf", "-> none")):
        tree = ONCE | {"etc/dnsmasq.conf": MAIN, "etc/dnsmasq.d/gfwlist.conf": old}
        assert check(host(tmp_path / str(number), tree)) == ""


def test_another_name_of_our_file_leads_to_the_new_one(tmp_path: Path) -> None:
    tree = {"etc/dnsmasq.conf": "conf-file=/etc/alias\n", "etc/alias": "-> dnsmasq.d/gfwlist.conf"}
    config = host(tmp_path, ONCE | tree | {"etc/dnsmasq.d/gfwlist.conf": "nonsense\n"})
    assert check(config) == ""


def test_a_folder_that_is_made_with_the_new_files_need_not_be_there(tmp_path: Path) -> None:
    config = host(tmp_path, {"etc/dnsmasq.conf": MAIN})
    assert check(config) == ""


def test_a_folder_that_nothing_reads_and_that_is_not_there_was_not_broken_before(tmp_path: Path) -> None:
    config = host(tmp_path, {"etc/dnsmasq.conf": "domain=lan\n"})
    assert check(config) == ""
    assert check(config, b"nonsense\n").startswith("dnsmasq would not start with the new files: ")


def test_a_folder_elsewhere_is_read_where_the_configuration_says(tmp_path: Path) -> None:
    tree = {"etc/dnsmasq.conf": 'conf-dir="/opt/dns.d"\n', "opt/dns.d/once": "cache-size=300\n"}
    config = host(tmp_path, tree, '[dns]\nconf_dir = "/opt/dns.d"\n')
    assert check(config) == ""
    assert "of /opt/dns.d/gfwlist.conf" in check(config, b"nonsense\n")


def test_a_broken_list_for_a_second_dnsmasq_is_named_by_its_place(tmp_path: Path) -> None:
    config = host(tmp_path, ONCE | {"etc/dnsmasq.conf": MAIN})
    with pytest.raises(ResolverError, match=r"bad option at line 1 of /etc/gfwtools/dns/gfwlist\.servers$"):
        check_configuration(config, {config.paths.etc / "dns/gfwlist.servers": b"nonsense\n"}, System())
