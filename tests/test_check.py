"""``gfwtools check domain``: the verdict, and everything that it rests on."""

import json
from pathlib import Path

import pytest
from cli import gfwtools
from paths import FIXTURES

LIST = FIXTURES / "list.txt"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc/gfwtools").mkdir(parents=True)
    (tmp_path / "etc/gfwtools/allow.txt").write_text("# mine\nfree.google.com\n")
    (tmp_path / "etc/gfwtools/deny.txt").write_text("denied.example\n")
    gfwtools(tmp_path, "update", "--source", str(LIST))
    return tmp_path


def test_the_users_lists_may_be_in_utf_16(root: Path) -> None:
    (root / "etc/gfwtools/deny.txt").write_bytes("# mine\r\ndenied.example\r\n中国.example\r\n".encode("utf-16"))
    result = gfwtools(root, "update", "--offline")
    assert "deny.txt" not in result.stderr
    (answer,) = ask(root, "中国.example")
    assert answer["verdict"] == "tunnel"
    assert answer["rules"] == [{"source": str(root / "etc/gfwtools/deny.txt"), "line": 3, "text": "中国.example"}]


def ask(root: Path, *names: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in gfwtools(root, "check", "domain", "--json", *names).stdout.splitlines()]


def test_the_object_of_a_tunnelled_name(root: Path) -> None:
    assert ask(root, "www.google.com") == [
        {
            "name": "www.google.com",
            "verdict": "tunnel",
            "matched": "google.com",
            "reason": "list",
            "rules": [
                {"source": str(root / "var/lib/gfwtools/gfwlist.list"), "line": line, "text": text}
                for line, text in (
                    (6, "||google.com"),
                    (18, "google.*"),
                    (22, "||maps.google.com"),
                    (23, "|http://www.google.com/search"),
                )
            ],
            "server": "8.8.8.8#53",
            "sets": ["gfwlist"],
            "policy": "gfwlist",
        }
    ]


def configure(root: Path, backend: str) -> None:
    (root / "etc/gfwtools/config.toml").write_text(f'[host]\nbackend = "{backend}"\n')


NFT_SETS = ["gfwlist4", "gfwlist6", "gfwlist_seed4", "gfwlist_seed6"]


def test_with_nftables_the_sets_of_the_object_are_those_in_the_kernel(root: Path) -> None:
    configure(root, "nftables")
    assert ask(root, "www.google.com")[0]["sets"] == NFT_SETS


@pytest.mark.parametrize(("backend", "sets"), [("iptables", ["gfwlist", "gfwlist6"]), ("nftables", NFT_SETS)])
def test_a_tunnelled_name_is_shown_with_the_sets_in_the_kernel(root: Path, backend: str, sets: list[str]) -> None:
    configure(root, backend)
    said = gfwtools(root, "check", "domain", "www.google.com").stdout
    assert f"  set       {', '.join(sets)}\n" in said


def test_with_auto_the_sets_are_those_of_the_files_that_the_last_update_wrote(root: Path) -> None:
    configure(root, "nftables")
    gfwtools(root, "update", "--offline")
    configure(root, "auto")
    assert ask(root, "www.google.com")[0]["sets"] == NFT_SETS


def test_the_object_of_a_name_that_no_list_has(root: Path) -> None:
    (found,) = ask(root, "example.com")
    assert found == {"name": "example.com", "verdict": "direct", "matched": None, "reason": "none", "rules": [],
                     "server": None, "sets": [], "policy": "gfwlist"}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "verdict", "matched", "reason"),
    [
        ("x.denied.example", "tunnel", "denied.example", "deny"),
        ("free.google.com", "direct", "free.google.com", "allow"),
        ("www.gstatic.com", "direct", "www.gstatic.com", "exception"),
        ("x.tokenplus.app", "direct", "*.tokenplus.app", "exception"),
        ("x.google", "tunnel", "google", "list"),
    ],
)
def test_who_decided(root: Path, name: str, verdict: str, matched: str, reason: str) -> None:
    (found,) = ask(root, name)
    assert (found["verdict"], found["matched"], found["reason"]) == (verdict, matched, reason)
    assert found["rules"]


def test_a_rule_of_the_users_is_shown_with_its_file_and_line(root: Path) -> None:
    output = gfwtools(root, "check", "domain", "free.google.com").stdout
    assert f"free.google.com  ({root}/etc/gfwtools/allow.txt line 2)" in output


@pytest.mark.parametrize(
    "text",
    [
        "GOOGLE.com",
        "google.com.",
        "https://google.com/x?y",
        "http://user@google.com:8080/",
        "google.com:443",
        "google.com/x",
    ],
)
def test_other_spellings_of_a_name_are_understood(root: Path, text: str) -> None:
    assert ask(root, text)[0]["name"] == "google.com"


def test_a_chinese_name_is_understood(root: Path) -> None:
    assert ask(root, "中国.example")[0]["name"] == "xn--fiqs8s.example"


@pytest.mark.parametrize("text", ["", "a b", "a..b", "1.2.3.4", "http://[::1]/", "x" * 64 + ".com", "a\nb", "http://"])
def test_what_is_no_name_is_a_usage_error(root: Path, text: str) -> None:
    gfwtools(root, "check", "domain", "--", text, code=2)


def test_names_come_from_standard_input(root: Path) -> None:
    output = gfwtools(root, "check", "domain", "-", stdin="google.com\n\nexample.com\n").stdout
    assert "google.com: tunnel" in output
    assert "example.com: direct" in output


def test_expect_decides_the_exit_code(root: Path) -> None:
    gfwtools(root, "check", "domain", "--expect", "tunnel", "google.com")
    gfwtools(root, "check", "domain", "--expect", "tunnel", "google.com", "example.com", code=1)
    gfwtools(root, "check", "domain", "--expect", "direct", "example.com")


def test_before_the_first_update_the_starter_list_answers_and_says_so(tmp_path: Path) -> None:
    result = gfwtools(tmp_path, "check", "domain", "google.com")
    assert "google.com: tunnel" in result.stdout
    assert "(starter list line " in result.stdout
    assert "gfwtools update" in result.stderr


@pytest.mark.parametrize("command", [("check", "domain", "google.com"), ("export", "domains")])
def test_a_damaged_list_is_not_shown_as_one_that_was_never_fetched(root: Path, command: tuple[str, ...]) -> None:
    (root / "var/lib/gfwtools/gfwlist.list").write_text("<html>")
    told = gfwtools(root, *command).stderr
    assert "gfwlist.list is missing or damaged; using the built-in starter list; run: gfwtools update" in told


def test_lists_that_are_newer_than_the_files_are_told(root: Path) -> None:
    assert gfwtools(root, "check", "domain", "google.com").stderr == ""
    (root / "etc/gfwtools/deny.txt").write_text("other.example\n")
    result = gfwtools(root, "check", "domain", "other.example")
    assert "other.example: tunnel" in result.stdout
    assert "have changed since the last update" in result.stderr


def test_of_several_policies_the_longer_domain_decides(tmp_path: Path) -> None:
    (tmp_path / "etc/gfwtools").mkdir(parents=True)
    (tmp_path / "work.txt").write_text("mail.google.com\n")
    (tmp_path / "etc/gfwtools/config.toml").write_text(
        f'[policy.gfwlist]\nsources = ["{LIST}"]\n[policy.work]\nformat = "domains"\ngranularity = "host"\n'
        f'sources = ["{tmp_path}/work.txt"]\n'
    )
    gfwtools(tmp_path, "update")
    assert ask(tmp_path, "www.google.com")[0]["policy"] == "gfwlist"
    assert ask(tmp_path, "x.mail.google.com")[0]["policy"] == "work"


def test_export_prints_what_update_writes(root: Path) -> None:
    for format, name in (
        ("domains", "var/lib/gfwtools/gfwlist.domains"),
        ("direct", "var/lib/gfwtools/gfwlist.direct"),
        ("dnsmasq", "etc/dnsmasq.d/gfwlist.conf"),
        ("ipset", "var/lib/gfwtools/gfwlist.ipset"),
    ):
        assert gfwtools(root, "export", format).stdout == (root / name).read_text()
    gfwtools(root, "export", "domains", "-o", str(root / "out.txt"))
    assert (root / "out.txt").read_text() == (root / "var/lib/gfwtools/gfwlist.domains").read_text()


def test_export_of_domains_says_how_many_are_direct_again_below_them(root: Path) -> None:
    count = len((root / "var/lib/gfwtools/gfwlist.direct").read_text().splitlines())
    assert count > 1
    said = gfwtools(root, "export", "domains").stderr
    assert f"{count} domains below these are direct again" in said
    assert "gfwtools export direct" in said
    (root / "etc/gfwtools/allow.txt").unlink()
    (root / "var/lib/gfwtools/gfwlist.list").write_text("||example.com\n")
    assert gfwtools(root, "export", "domains").stderr == ""


def test_export_of_an_unknown_format_or_policy_is_a_usage_error(root: Path) -> None:
    gfwtools(root, "export", "pdf", code=2)
    gfwtools(root, "export", "domains", "--policy", "none", code=2)


@pytest.mark.parametrize("text", [".google.com", "*.google.com", "google.com?x=1", "user@google.com", "google.com:"])
def test_what_a_person_pastes_is_understood(root: Path, text: str) -> None:
    assert ask(root, text)[0]["name"] == "google.com"


def test_a_relative_root_is_as_good_as_an_absolute_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    output = gfwtools(Path(root.name), "check", "domain", "denied.example").stdout
    assert "denied.example: tunnel" in output


def test_one_bad_name_of_many_on_standard_input_does_not_stop_the_others(root: Path) -> None:
    result = gfwtools(root, "check", "domain", "-", stdin="a b\ngoogle.com\n", code=2)
    assert "google.com: tunnel" in result.stdout
    assert "'a b'" in result.stderr


def test_an_address_among_names_does_not_stop_the_others_and_says_what_answers_it(root: Path) -> None:
    result = gfwtools(root, "check", "domain", "google.com", "203.0.113.7", "[2001:db8::7]", "example.com", code=2)
    assert [line for line in result.stdout.split("\n") if line and line[0] != " "] == [
        "google.com: tunnel",
        "example.com: direct",
    ]
    assert "run: gfwtools check ip 203.0.113.7\n" in result.stderr
    assert "run: gfwtools check ip 2001:db8::7\n" in result.stderr


def test_one_address_alone_says_what_answers_it(root: Path) -> None:
    assert "gfwtools check ip 203.0.113.7" in gfwtools(root, "check", "domain", "203.0.113.7", code=2).stderr


def test_a_name_among_addresses_does_not_stop_the_others(root: Path) -> None:
    result = gfwtools(root, "check", "ip", "127.0.0.1", "google.com", code=2)
    assert "127.0.0.1: direct" in result.stdout
    assert "'google.com' is not an address" in result.stderr


def test_several_policies_are_read_as_dnsmasq_reads_their_files(tmp_path: Path) -> None:
    from matching import read_conf, verdict

    (tmp_path / "etc/gfwtools").mkdir(parents=True)
    (tmp_path / "one.txt").write_text("||example.com\n@@||www.example.com\n||gstatic.com\n")
    (tmp_path / "two.txt").write_text("||www.example.com\n||gstatic.com\n@@||www.gstatic.com\n||other.org\n")
    (tmp_path / "etc/gfwtools/config.toml").write_text(
        "".join(
            f'[policy.{name}]\ngranularity = "host"\nsources = ["{tmp_path}/{name}.txt"]\n' for name in ("one", "two")
        )
    )
    gfwtools(tmp_path, "update")
    text = "".join((tmp_path / f"etc/dnsmasq.d/{name}.conf").read_text() for name in ("one", "two"))
    conf = read_conf(text)
    for name in ("example.com", "www.example.com", "x.www.example.com", "gstatic.com", "www.gstatic.com", "other.org"):
        assert ask(tmp_path, name)[0]["verdict"] == verdict(name, conf), name
    assert (
        gfwtools(tmp_path, "export", "dnsmasq", "--policy", "two").stdout
        == (tmp_path / "etc/dnsmasq.d/two.conf").read_text()
    )


def test_an_export_goes_through_a_link_and_into_a_device(root: Path) -> None:
    (root / "target").write_text("")
    (root / "link").symlink_to(root / "target")
    gfwtools(root, "export", "domains", "-o", str(root / "link"))
    assert (root / "link").is_symlink()
    assert "google.com\n" in (root / "target").read_text()
    gfwtools(root, "export", "domains", "-o", "/dev/null")
    assert Path("/dev/null").is_char_device()
