"""dnsmasq's configuration as dnsmasq reads it."""

from pathlib import Path

import pytest
from trees import DEBIAN_SCRIPT, Tree, host

from gfwtools.dnsmasq import conf
from gfwtools.dnsmasq.daemon import daemon_of

READ = "conf-dir=/etc/dnsmasq.d/,*.conf\n"


# ---------------------------------------------------------------- a line


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("port=5353 # moved", ("port", "5353")),
        (" port = 5353\r", ("port", "5353")),
        ("no-resolv", ("no-resolv", "")),
        ("domain=a#b", ("domain", "a#b")),
        ('conf-file="/etc/a #b"', ("conf-file", "/etc/a #b")),
        ('conf-file="/etc/\\"a\\""', ("conf-file", '/etc/"a"')),
        ("# port=1", None),
        ("", None),
        ('conf-file="/etc/a', None),
    ],
)
def test_a_line_is_taken_apart_as_dnsmasq_does(line: str, expected: tuple[str, str] | None) -> None:
    assert conf.directive(line) == expected


def test_a_comma_in_quotation_marks_separates_nothing() -> None:
    for line, expected in (
        ('conf-dir="/etc/a,b" , *.conf', ("/etc/a,b", ["*.conf"])),
        ("conf-dir=/etc/a,.bak,.old", ("/etc/a", [".bak", ".old"])),
    ):
        found = conf.directive(line)
        assert found
        assert conf.folder_and_filters(found[1]) == expected


@pytest.mark.parametrize(
    ("name", "filters", "expected"),
    [
        ("a.conf", [], True),
        ("a.conf", ["*.conf"], True),
        ("a.conf", ["*"], True),
        ("a", ["*.conf"], False),
        ("a.conf", [".conf"], False),
        ("a.conf", ["*.conf", "a.conf"], True),
        ("b.a.conf", ["*.conf", "a.conf"], False),
        (".a", [], False),
        ("a~", [], False),
        ("#a#", [], False),
        ("a.dpkg-old", [], True),
    ],
)
def test_a_name_in_a_folder_passes_as_it_does_with_dnsmasq(name: str, filters: list[str], expected: bool) -> None:
    assert conf.passes(name, filters) == expected


def test_a_directive_has_the_file_and_the_line_where_it_is(tmp_path: Path) -> None:
    tree = {
        "etc/dnsmasq.conf": "# mine\n\nport=1\nconf-file=/etc/more\nno-resolv\n\nport=3\n",
        "etc/more": "no-poll\n \nport=2",
    }
    lines = conf.read(host(tmp_path, tree), only=("port",)).lines
    assert [(line.value, line.file, line.number) for line in lines] == [
        ("1", "/etc/dnsmasq.conf", 3),
        ("2", "/etc/more", 3),
        ("3", "/etc/dnsmasq.conf", 7),
    ]


def test_a_line_knows_whether_it_comes_before_a_file_that_is_skipped(tmp_path: Path) -> None:
    tree = {"etc/dnsmasq.conf": f"port=1\n{READ}", **{f"etc/dnsmasq.d/{name}.conf": "port=2\n" for name in "abc"}}
    found = conf.read(host(tmp_path, tree), skip={"b.conf"})
    assert [line.file for line in found.lines[: found.before_skipped]] == [
        "/etc/dnsmasq.conf",
        "/etc/dnsmasq.conf",
        "/etc/dnsmasq.d/a.conf",
    ]


# ---------------------------------------------------------------- where dnsmasq listens

PORTS = [
    {"etc/dnsmasq.conf": "port=5353 # moved\n"},
    {"etc/dnsmasq.conf": 'port="5353"\n'},
    {"etc/dnsmasq.conf": "conf-dir=/etc/dnsmasq.d\n", "etc/dnsmasq.d/port": "port=5353\n"},
    {"etc/dnsmasq.conf": "conf-file=/etc/dm.more\n", "etc/dm.more": "port=5353\n"},
    {"etc/dnsmasq.conf": f"{READ}conf-file=/etc/dm.more\n", "etc/dm.more": "port=5353\n"},
    {"etc/dnsmasq.conf": "conf-dir=/etc/other.d\n", "etc/other.d/x": "port=5353\n"},
    {
        **DEBIAN_SCRIPT,
        "etc/default/dnsmasq": "CONFIG_DIR=/etc/dnsmasq.d,.dpkg-old\n",
        "etc/dnsmasq.d/port": "port=5353\n",
    },
    # The command line is read before the file.
    {
        **DEBIAN_SCRIPT,
        "etc/default/dnsmasq": "CONFIG_DIR=/etc/d\n",
        "etc/d/port": "port=53\n",
        "etc/dnsmasq.conf": "port=5353\n",
    },
    # Nothing reads the folder yet: gfwtools' own line will.
    {"etc/dnsmasq.d/port.conf": "port=5353\n"},
]
NO_PORTS = [
    {"etc/dnsmasq.conf": "#port=5353\n"},
    {"etc/dnsmasq.conf": READ, "etc/dnsmasq.d/port": "port=5353\n"},
    {"etc/dnsmasq.conf": "conf-dir=/etc/dnsmasq.d,.bak\n", "etc/dnsmasq.d/port.bak": "port=5353\n"},
    {"etc/dnsmasq.conf": "", "etc/dm.more": "port=5353\n"},
]


@pytest.mark.parametrize("tree", PORTS)
def test_dnsmasq_is_asked_at_the_port_that_its_configuration_names(tmp_path: Path, tree: Tree) -> None:
    assert str(daemon_of(host(tmp_path, tree))) == "127.0.0.1#5353"


@pytest.mark.parametrize("tree", NO_PORTS)
def test_a_port_that_dnsmasq_does_not_read_is_none(tmp_path: Path, tree: Tree) -> None:
    assert str(daemon_of(host(tmp_path, tree))) == "127.0.0.1#53"


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        ("listen-address=192.0.2.1,127.0.0.1 # lan\n", "127.0.0.1"),
        ("listen-address=192.0.2.1\nlisten-address=192.0.2.2\n", "192.0.2.1"),
        ("listen-address=192.0.2.1 , 192.0.2.2 # lan\n", "192.0.2.1"),
        ('listen-address="2001:db8::1"\n', "2001:db8::1"),
    ],
)
def test_dnsmasq_is_asked_at_an_address_that_its_configuration_names(tmp_path: Path, lines: str, address: str) -> None:
    assert daemon_of(host(tmp_path, {"etc/dnsmasq.conf": lines})).address == address


def test_files_that_include_each_other_come_to_an_end(tmp_path: Path) -> None:
    tree = {
        "etc/dnsmasq.conf": "conf-file=/etc/more\nport=5353\n",
        "etc/more": "conf-file=/etc/dnsmasq.conf\nconf-file=/etc/more\n",
    }
    assert daemon_of(host(tmp_path, tree)).port == 5353


def test_a_file_found_under_two_names_is_read_once(tmp_path: Path) -> None:
    tree = {
        "etc/dnsmasq.conf": "conf-dir=/etc/dnsmasq.d\n",
        "etc/dnsmasq.d/a": "server=192.0.2.1\n",
        "etc/dnsmasq.d/b": "-> a",
    }
    servers = [pair for pair in conf.read(host(tmp_path, tree)).directives if pair[0] == "server"]
    assert servers == [("server", "192.0.2.1")]


def test_of_the_directives_only_those_that_are_wanted_are_given(tmp_path: Path) -> None:
    tree = {"etc/dnsmasq.conf": "port=5353\nserver=192.0.2.1\nconf-dir=/etc/dnsmasq.d\n", "etc/dnsmasq.d/a": "port=1\n"}
    found = conf.read(host(tmp_path, tree), only=("port",))
    assert found.directives == (("port", "5353"), ("port", "1"))
    assert found.reads_conf_dir
