"""The shell script's stand-in: its flags, its output, and not its mistakes."""

from pathlib import Path

import pytest
from cli import gfwlist2dnsmasq
from dnsmasq_files import body, dnsmasq_accepts
from paths import FIXTURES


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "config.toml").write_text(f'[policy.gfwlist]\nsources = ["{FIXTURES / "list.txt"}"]\n')
    return {"GFWTOOLS_CONFIG": str(tmp_path / "config.toml")}


def test_the_cron_line_of_the_script_works_as_it_is(tmp_path: Path, env: dict[str, str]) -> None:
    out = tmp_path / "gfwlist.conf"
    gfwlist2dnsmasq("-d", "8.8.8.8", "-p", "53", "-s", "gfwlist", "-o", str(out), **env)
    lines = body(out.read_text())
    assert lines[lines.index("server=/google.com/8.8.8.8#53") + 1] == "ipset=/google.com/gfwlist"
    assert "server=/www.gstatic.com/#" in lines
    assert "server=/www.example.co.uk/8.8.8.8#53" in lines  # the host, as the script has it
    dnsmasq_accepts(out)


def test_without_a_set_there_are_server_lines_only(tmp_path: Path, env: dict[str, str]) -> None:
    gfwlist2dnsmasq("-o", str(tmp_path / "out"), **env)
    assert all(line.startswith("server=/") for line in body((tmp_path / "out").read_text()))
    assert "server=/google.com/127.0.0.1#5353" in body((tmp_path / "out").read_text())


def test_several_sets_are_written_as_given(tmp_path: Path, env: dict[str, str]) -> None:
    gfwlist2dnsmasq("-s", "a,b", "-o", str(tmp_path / "out"), **env)
    assert "ipset=/google.com/a,b" in body((tmp_path / "out").read_text())


def test_the_list_of_domains_has_nothing_but_domains(tmp_path: Path, env: dict[str, str]) -> None:
    said = gfwlist2dnsmasq("-l", "-o", str(tmp_path / "out"), **env).stderr
    assert "direct again, which a list of domains cannot say" in said
    lines = (tmp_path / "out").read_text().splitlines()
    assert "google.com" in lines
    assert "www.gstatic.com" not in lines


def test_extra_domains_are_added_and_excluded_ones_left_out_and_no_others(tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "exclude").write_text("b.social\ngithub.io\n")
    (tmp_path / "extra").write_text("extra.example\n")
    gfwlist2dnsmasq(
        "-l", "-o", str(tmp_path / "out"), "--exclude-domain-file", str(tmp_path / "exclude"), "--extra-domain-file",
        str(tmp_path / "extra"), **env,
    )  # fmt: skip
    lines = (tmp_path / "out").read_text().splitlines()
    assert "extra.example" in lines
    assert "neodb.social" in lines
    assert "github.io" not in lines


def test_an_empty_exclude_file_excludes_nothing(tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "exclude").write_text("")
    gfwlist2dnsmasq("-l", "-o", str(tmp_path / "one"), **env)
    gfwlist2dnsmasq("-l", "-o", str(tmp_path / "two"), "--exclude-domain-file", str(tmp_path / "exclude"), **env)
    assert (tmp_path / "one").read_text() == (tmp_path / "two").read_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "no output file"),
        (["-o", "/"], "is a folder"),
        (["-o", "/nowhere/out"], "does not exist"),
        (["-o", "x", "-d", "8.8.8"], "is not a resolver"),
        (["-o", "x", "-p", "0"], "bad port"),
        (["-o", "x", "-p", "70000"], "bad port"),
        (["-o", "x", "-s", "a b"], "set names"),
        (["-o", "x", "-s", "a/b#"], "set names"),
        (["-o", "x", "--exclude-domain-file", "/nowhere"], "not there"),
    ],
)
def test_a_wrong_argument_is_told_in_one_line(args: list[str], message: str, env: dict[str, str]) -> None:
    result = gfwlist2dnsmasq(*args, code=1, **env)
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_when_no_mirror_answers_the_old_file_stays(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[policy.gfwlist]\nsources = ["http://127.0.0.1:9/"]\n')
    (tmp_path / "out").write_text("old")
    gfwlist2dnsmasq("-o", str(tmp_path / "out"), code=1, GFWTOOLS_CONFIG=str(tmp_path / "config.toml"))
    assert (tmp_path / "out").read_text() == "old"


def test_help_exits_with_0() -> None:
    assert "--exclude-domain-file" in gfwlist2dnsmasq("-h").stdout


def test_a_link_to_itself_as_a_list_is_an_error_in_one_line(tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "loop").symlink_to("loop")
    arguments = ("-o", str(tmp_path / "out"), "--exclude-domain-file", str(tmp_path / "loop"))
    stderr = gfwlist2dnsmasq(*arguments, code=1, **env).stderr
    assert stderr.startswith(f"gfwlist2dnsmasq: {tmp_path / 'loop'} is ")
    assert stderr.count("\n") == 1
