"""The configuration: what is wrong in it is told with file, key and what was expected, in one line."""

import os
from pathlib import Path

import pytest
from cli import gfwtools
from hypothesis import given
from hypothesis import strategies as st

from gfwtools.config.load import load, loads
from gfwtools.config.model import Config
from gfwtools.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour = 1", "c.toml: colour: unknown key; expected fetch, dns, host or policy"),
        ("[fetch]\ntimout = 1", "c.toml: fetch.timout: unknown key; expected timeout,"),
        ('[fetch]\ntimeout = "20"', "c.toml: fetch.timeout: '20' is not a time in seconds; give 0.1 to 3600"),
        ("[fetch]\ntimeout = true", "c.toml: fetch.timeout: True is not"),
        ("[fetch]\ntimeout = nan", "c.toml: fetch.timeout: nan is not"),
        ("[fetch]\nmin_share = 2", "c.toml: fetch.min_share: 2 is not a share; give 0 to 1"),
        ('[fetch]\nproxy = "ftp://x"', "c.toml: fetch.proxy: 'ftp://x' is not a proxy; use http://HOST:PORT"),
        ("fetch = 1", "c.toml: fetch: expected a table, [fetch]"),
        ('[dns]\nlayout = "both"', "c.toml: dns.layout: 'both' is not known; give paired or split"),
        ('[dns]\nconf_dir = "etc"', "c.toml: dns.conf_dir: 'etc' is not a path; give one that begins with /"),
        *(
            (f'[dns]\nconf_dir = "{folder}"', f"c.toml: dns.conf_dir: '{folder}' is a folder of gfwtools' own")
            for folder in ("/etc/gfwtools", "/etc/gfwtools/dns", "//etc/./gfwtools/dns/", "/var/lib/gfwtools/before")
        ),
        (
            "[policy.gfwlist]\nsources = ['/\u202etxt.tsil']",
            r"c.toml: policy.gfwlist.sources: '/\u202etxt.tsil' is not",
        ),
        ('[dns]\nmanager = "command"', "c.toml: dns.restart: needed with manager"),
        ("[policy.gfwlist]\nmark = 0", "c.toml: policy.gfwlist.mark: 0 is not a mark; give 1 to 4294967295"),
        ("[policy.gfwlist]\nmark = 4294967296", "c.toml: policy.gfwlist.mark: 4294967296 is not a mark"),
        ("[policy.gfwlist]\ntable = 254", "c.toml: policy.gfwlist.table: 254 is the kernel's own table main"),
        ('[policy.gfwlist]\nset = "a b"', "c.toml: policy.gfwlist.set: 'a b' is not a name for a set"),
        ('[policy.gfwlist]\nset = "a/b"', "c.toml: policy.gfwlist.set"),
        (
            '[policy.gfwlist]\ninterface = "wg/0"',
            "c.toml: policy.gfwlist.interface: 'wg/0' is not a name for an interface",
        ),
        ('[policy.gfwlist]\ninterface = "a234567890123456"', "c.toml: policy.gfwlist.interface"),
        ('[policy.gfwlist]\ninterface = ".."', "c.toml: policy.gfwlist.interface"),
        *(
            (f'[policy.gfwlist]\ninterface = "{name}"', "c.toml: policy.gfwlist.interface")
            for name in ("all", "default", "wg+", "+")
        ),
        *(
            (f"[dns]\n{key} = {value}", f"c.toml: dns.{key}: {shown} means something else to dnsmasq")
            for key, value, shown in (
                ("conf_dir", "'/etc/a #b'", "'/etc/a #b'"),
                ("conf_dir", "'/etc/a\"b'", "'/etc/a\"b'"),
                ("pid_file", "'/run/a\\b'", r"'/run/a\\b'"),
                ("pid_file", "'/run/a '", "'/run/a '"),
                ("addn_hosts", "['/etc/a\u2028b']", r"'/etc/a\u2028b'"),
            )
        ),
        ('[policy.gfwlist]\nupstream = ["8.8.8"]', "c.toml: policy.gfwlist.upstream: '8.8.8' is not a resolver"),
        ('[policy.gfwlist]\nupstream = ["8.8.8.8#0"]', "c.toml: policy.gfwlist.upstream: '8.8.8.8#0' has a bad port"),
        ('[policy.gfwlist]\nupstream = ["8.8.8.8#65536"]', "c.toml: policy.gfwlist.upstream"),
        ('[policy.gfwlist]\nupstream = "8.8.8.8"', "c.toml: policy.gfwlist.upstream: '8.8.8.8' is not a list"),
        ("[policy.gfwlist]\nupstream = []", "c.toml: policy.gfwlist.upstream: the list is empty"),
        ('[policy.gfwlist]\nsources = ["ftp://x"]', "c.toml: policy.gfwlist.sources: 'ftp://x' is not a source"),
        ('[policy.gfwlist]\nseeds = ["91.108.4.1/22"]', "c.toml: policy.gfwlist.seeds: '91.108.4.1/22': its host bits"),
        ('[policy.gfwlist]\nseeds = ["0.0.0.0/0"]', "c.toml: policy.gfwlist.seeds: '0.0.0.0/0' is the whole Internet"),
        ('[policy.gfwlist]\nnat = "snat:x"', "c.toml: policy.gfwlist.nat: 'x' is not an address"),
        ('[policy.gfwlist]\nnat = "yes"', "c.toml: policy.gfwlist.nat: 'yes' is not known"),
        ('[policy.gfwlist]\ngranularity = "x"', "c.toml: policy.gfwlist.granularity: 'x' is not known"),
        ("[policy.UP]", "c.toml: policy.UP: 'UP' is not a name for a policy"),
        ('[policy."../x"]', "c.toml: policy.../x: '../x' is not a name for a policy"),
        ("policy = 1", "c.toml: policy: expected a table"),
        ("[policy.a]\nmark = 5\n[policy.b]\nmark = 5", "c.toml: policy.b.mark: 0x5 is policy.a's"),
        ("[policy.a]\ntable = 5\n[policy.b]\ntable = 5", "c.toml: policy.b.table: 5 is policy.a's"),
        ('[policy.a]\nset = "s"\n[policy.b]\nset = "s"', "c.toml: policy.b.set: s is policy.a's"),
        ('[policy.a]\nset = "s"\n[policy.b]\nset = "s6"', "c.toml: policy.b.set: s6 is a set of policy.a as well"),
        (
            '[policy.a]\nset = "s"\n[policy.b]\nset = "s_seed"',
            "c.toml: policy.b.set: s_seed4 is a set of policy.a as well",
        ),
        (
            '[policy.a]\nset = "s_seed"\n[policy.b]\nset = "s"',
            "c.toml: policy.b.set: s_seed4 is a set of policy.a as well",
        ),
        (
            '[policy.a]\nset = "s"\n[policy.b]\nset = "s_seed6"',
            "c.toml: policy.b.set: s_seed6 is a set of policy.a as well",
        ),
        (
            '[policy.a]\nset = "s"\n[policy.b]\nset = "s_direct4"',
            "c.toml: policy.b.set: s_direct4 is a set of policy.a as well",
        ),
        ("[host]\npreference = 0", "c.toml: host.preference: 0 is not a preference; give 1 to 32000"),
        ("[host]\nconnmark_mask = 0", "c.toml: host.connmark_mask: 0 is not a mask of the connection mark; give 1 to"),
        ("[host]\nconnmark_mask = 0x50", "c.toml: host.connmark_mask: 0x50 has a gap between its bits; give bits side"),
        (
            "[host]\nconnmark_mask = 0x80\n[policy.a]\n[policy.b]",
            "c.toml: host.connmark_mask: 0x80 has room for 1 policy, and there are 2; give more bits",
        ),
        ("a = [", "c.toml: not TOML:"),
        ('[policy.gfwlist]\nupstream = ["::1%x\\nno-resolv"]', "c.toml: policy.gfwlist.upstream"),
        ('[policy.gfwlist]\nseeds = ["2606::1%y\\nadd gfwlist 9.9.9.9"]', "c.toml: policy.gfwlist.seeds"),
        ('[policy.gfwlist]\nnat = "snat:fe80::1%a"', "c.toml: policy.gfwlist.nat"),
        ('[policy.gfwlist]\ninterface = "-x"', "c.toml: policy.gfwlist.interface"),
        ('[dns]\nconf_dir = "/../../x"', "c.toml: dns.conf_dir"),
        ('[fetch]\nproxy = "http://x:99999"', "c.toml: fetch.proxy"),
        ('[fetch]\nproxy = "http://[::1"', "c.toml: fetch.proxy: 'http://[::1' is not a proxy; use http://HOST:PORT"),
        ('[fetch]\nproxy = "http://[::x]:80"', "c.toml: fetch.proxy: 'http://[::x]:80' is not a proxy"),
        ('[fetch]\nproxy = "socks4://me:SECRET@10.0.0.1:1080"', "c.toml: fetch.proxy: 'socks4://***@10.0.0.1:1080' is"),
        ('[fetch]\nproxy = "me:SECRET@10.0.0.1:1080"', "c.toml: fetch.proxy: '***@10.0.0.1:1080' is not a proxy"),
        ('[fetch]\nproxy = ["http://me:SECRET@10.0.0.1"]', "c.toml: fetch.proxy: ['http://***@10.0.0.1'] is not"),
        (
            '[policy.gfwlist]\nsources = ["ftp://me:SEC/RET@x/l"]',
            "c.toml: policy.gfwlist.sources: 'ftp://***@x/l' is not a source",
        ),
    ],
)
def test_what_is_wrong_is_told_with_file_key_and_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(text, "c.toml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_no_file_is_the_defaults_and_a_named_one_must_be_there(tmp_path: Path) -> None:
    assert load(tmp_path / "none.toml") == Config()
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "none.toml", required=True)


def test_a_file_that_is_no_utf_8_is_told(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes(b"# \xff\n")
    with pytest.raises(ConfigError, match="byte 2 is not UTF-8"):
        load(tmp_path / "c.toml")


@pytest.mark.parametrize(
    "text", ["[policy.work]\n[policy.gfwlist]\n", "[policy.gfwlist]\n[policy.work]\n[policy.third]\n"]
)
def test_further_policies_get_marks_tables_and_sets_of_their_own(text: str) -> None:
    policies = loads(text).policies
    assert len({policy.mark for policy in policies}) == len(policies)
    assert len({policy.table for policy in policies}) == len(policies)
    assert len({policy.set for policy in policies}) == len(policies)
    assert next(policy.mark for policy in policies if policy.name == "gfwlist") == 0xCA6C


@given(st.text(max_size=60))
def test_no_text_raises_anything_but_a_config_error(text: str) -> None:
    try:
        loads(text)
    except ConfigError as error:
        assert "\n" not in str(error)


def test_the_command_line_tells_it_in_one_line_and_exits_with_1(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[policy.gfwlist]\nmark = 0\n")
    result = gfwtools(tmp_path, "--config", str(tmp_path / "c.toml"), "check", "domain", "a.com", code=1)
    assert result.stderr == (
        f"gfwtools: {tmp_path}/c.toml: policy.gfwlist.mark: 0 is not a mark; give 1 to 4294967295\n"
    )


def test_a_pipe_or_a_device_as_the_configuration_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ConfigError, match="no regular file"):
            load(path)
    assert load(Path("/dev/null")) == Config()


@pytest.mark.parametrize("code", [0x85, 0x9B, 0x2028, 0x2029])
@pytest.mark.parametrize("key", ["allow", "sources"])
def test_a_control_character_beyond_ascii_is_refused_and_not_printed(code: int, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(f'[policy.gfwlist]\n{key} = ["/a\\u{code:04x}b"]\n')
    assert str(caught.value).isprintable()
