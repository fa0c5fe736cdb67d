"""``gfwtools update``, as its users run it: a process, a root, files."""

import base64
import json
import os
import re
import socket
import subprocess
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cli import gfwtools
from paths import FIXTURES

from gfwtools.config.load import load
from gfwtools.config.userinfo import masked
from gfwtools.lists import compiler
from gfwtools.lists.formats import Listing
from gfwtools.storage.state import read_state
from gfwtools.update.update import update

LIST = FIXTURES / "list.txt"
CONF = "etc/dnsmasq.d/gfwlist.conf"
VAR = "var/lib/gfwtools"


def snapshot(root: Path) -> dict[str, tuple[bytes, int, int]]:
    """Every file with its content, time and inode: whoever touches one is seen."""
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino)
        for path in root.rglob("*")
        if path.is_file()
    }


def contents(root: Path) -> dict[str, bytes]:
    return {name: data for name, (data, _, _) in snapshot(root).items() if not name.endswith("/lock")}


def configure(root: Path, text: str) -> None:
    path = root / "etc/gfwtools/config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_an_update_writes_the_files_of_the_policy(tmp_path: Path) -> None:
    output = gfwtools(tmp_path, "update", "--source", str(LIST)).stdout
    assert sorted(contents(tmp_path)) == sorted(
        [
            CONF,
            *(f"{VAR}/gfwlist.{ending}" for ending in ("direct", "domains", "ipset", "list")),
            f"{VAR}/state.json",
        ]
    )
    assert "rules from" in output
    assert (tmp_path / VAR / "gfwlist.list").read_bytes() == LIST.read_bytes()
    assert "google.com\n" in (tmp_path / VAR / "gfwlist.domains").read_text()
    assert "server=/www.gstatic.com/#\n" in (tmp_path / CONF).read_text()
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in tmp_path.rglob("*") if path.is_file())


def test_what_is_direct_again_below_a_tunnelled_domain_has_a_file_beside_the_domains(tmp_path: Path) -> None:
    gfwtools(tmp_path, "update", "--source", str(LIST))
    server = re.compile(r"server=/(.*)/#")
    freed = [found[1] for line in (tmp_path / CONF).read_text().split("\n") if (found := server.fullmatch(line))]
    assert "*.tokenplus.app" in freed
    assert sorted((tmp_path / VAR / "gfwlist.direct").read_text().split()) == sorted(freed)


def test_an_update_that_finds_nothing_new_touches_no_file(tmp_path: Path) -> None:
    gfwtools(tmp_path, "update", "--source", str(LIST))
    before = snapshot(tmp_path)
    output = gfwtools(tmp_path, "update", "--source", str(LIST)).stdout
    assert "nothing new" in output
    assert {k: v for k, v in snapshot(tmp_path).items() if not k.endswith("lock")} == {
        k: v for k, v in before.items() if not k.endswith("lock")
    }


@pytest.mark.parametrize(
    "published",
    [b"\xef\xbb\xbf\xef\xbb\xbf||example.com\n||google.com\n", base64.encodebytes(b"googlecom\nexamplecom\n")],
    ids=["with two byte order marks", "base64 of what looks like base64"],
)
def test_a_list_is_unwrapped_once_and_read_back_as_it_was_taken(tmp_path: Path, published: bytes) -> None:
    configure(tmp_path, '[policy.gfwlist]\nformat = "domains"\n')
    source = tmp_path.with_name("wrapped.txt")
    source.write_bytes(published)
    gfwtools(tmp_path, "update", "--source", str(source))
    before = contents(tmp_path)
    assert "have changed" not in gfwtools(tmp_path, "check", "domain", "example.com").stderr
    assert "nothing new" in gfwtools(tmp_path, "update", "--offline").stdout
    assert "nothing new" in gfwtools(tmp_path, "update", "--source", str(source)).stdout
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("format", "text", "message"),
    [
        ("autoproxy", "0.0.0.0 a.com\n0.0.0.0 b.com\n", 'write format = "hosts" into [policy.gfwlist]'),
        ("domains", "full:a.com\ninclude:google\n", "a v2fly domain list, which gfwtools cannot read"),
    ],
)
def test_a_list_in_another_format_than_the_configuration_says_is_refused_and_named(
    tmp_path: Path, format: str, text: str, message: str
) -> None:
    configure(tmp_path, f'[policy.gfwlist]\nformat = "{format}"\n')
    source = tmp_path.with_name("foreign.txt")
    source.write_text(text)
    assert message in gfwtools(tmp_path, "update", "--source", str(source), code=1).stderr
    assert not (tmp_path / CONF).exists()


@pytest.mark.parametrize("damage", ["remove", "change", "empty"])
@pytest.mark.parametrize(
    "name",
    [CONF, *(f"{VAR}/gfwlist.{ending}" for ending in ("direct", "domains", "ipset", "list")), f"{VAR}/state.json"],
)
def test_the_next_run_mends_what_is_missing_or_damaged(tmp_path: Path, name: str, damage: str) -> None:
    gfwtools(tmp_path, "update", "--source", str(LIST))
    good = contents(tmp_path)
    path = tmp_path / name
    if damage == "remove":
        path.unlink()
    else:
        path.write_text("garbage\n" if damage == "change" else "")
    gfwtools(tmp_path, "update", "--source", str(LIST))
    mended = contents(tmp_path)
    state = f"{VAR}/state.json"
    assert {k: v for k, v in mended.items() if k != state} == {k: v for k, v in good.items() if k != state}
    assert json.loads(mended[state])["version"] == 1


def test_the_account_in_json_has_every_rule_and_adds_up(tmp_path: Path) -> None:
    document = json.loads(gfwtools(tmp_path, "update", "--source", str(LIST), "--json").stdout)
    (policy,) = document["policies"]
    counts = policy["counts"]
    assert counts["read"] == len(policy["rules"])
    assert counts["read"] == counts["applied"] + counts["widened"] + counts["redundant"] + sum(
        counts["dropped"].values()
    )
    by_text = {rule["text"]: rule for rule in policy["rules"]}
    assert by_text["||neodb.social"]["domains"] == ["neodb.social"]
    assert by_text["||maps.google.com"]["status"] == "redundant"
    assert by_text["||cdn*.widened.com"]["status"] == "widened"
    assert by_text["keyword"]["reason"] == "keyword"
    assert by_text["||mp"]["reason"] == "tld"
    assert by_text["|http://85.17.73.31/"]["domains"] == ["85.17.73.31/32"]
    assert by_text["@@||google.com/path"]["reason"] == "narrow-exception"
    assert set(policy["added"]) >= {"google.com", "akamaihd.net"}
    # Nothing has changed, and the account is given all the same.
    again = json.loads(gfwtools(tmp_path, "update", "--source", str(LIST), "--json").stdout)
    assert not again["changed"]
    assert again["policies"][0]["rules"] == policy["rules"]


def test_what_changed_is_told_by_name(tmp_path: Path) -> None:
    gfwtools(tmp_path, "update", "--source", str(LIST))
    other = tmp_path / "other.txt"
    other.write_text(LIST.read_text().replace("||github.io", "||new.example"))
    output = gfwtools(tmp_path, "update", "--source", str(other)).stdout
    assert "  +1: new.example\n" in output
    assert "  -1: github.io\n" in output


def test_a_dry_run_shows_the_difference_and_writes_nothing(tmp_path: Path) -> None:
    gfwtools(tmp_path, "update", "--source", str(LIST))
    before = snapshot(tmp_path)
    other = tmp_path.with_name("other.txt")
    other.write_text(LIST.read_text().replace("||github.io", "||new.example"))
    output = gfwtools(tmp_path, "update", "--dry-run", "--source", str(other)).stdout
    assert "+server=/new.example/8.8.8.8#53\n" in output
    assert "-ipset=/github.io/gfwlist,gfwlist6\n" in output
    assert snapshot(tmp_path) == before


def test_a_dry_run_on_a_fresh_host_makes_no_folder(tmp_path: Path) -> None:
    gfwtools(tmp_path / "root", "update", "--dry-run", "--source", str(LIST))
    assert not (tmp_path / "root").exists()


PLAIN = LIST.read_bytes()
BAD = {
    "a web page": (b"<!DOCTYPE html><html><body>log in</body></html>", "web page"),
    "an empty body": (b"", "empty"),
    "base64 cut short": (base64.b64encode(PLAIN)[:-3], "cut short"),
    "a wrong checksum": (PLAIN.replace(b"! Title", b"! Checksum: AAAAAAAAAAAAAAAAAAAAAA\n! Title", 1), "checksum"),
    "text that is no list": (b"Lorem ipsum dolor\nsit amet\n", "no list"),
    "a shrunken list": (b"[AutoProxy 0.2.9]\n||google.com\n", "min_share"),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_what_is_no_good_list_changes_nothing_and_is_told_in_one_line(tmp_path: Path, name: str) -> None:
    gfwtools(tmp_path, "update", "--source", str(LIST))
    before = contents(tmp_path)
    data, message = BAD[name]
    source = tmp_path.with_name("bad.txt")
    source.write_bytes(data)
    result = gfwtools(tmp_path, "update", "--source", str(source), code=1)
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert contents(tmp_path) == before


def test_a_list_above_the_limit_is_refused(tmp_path: Path) -> None:
    configure(tmp_path, "[fetch]\nmax_bytes = 1024\n")
    source = tmp_path.with_name("large.txt")
    source.write_bytes(b"||a.com\n" * 200)
    assert "1024" in gfwtools(tmp_path, "update", "--source", str(source), code=1).stderr
    assert not (tmp_path / CONF).exists()


def test_a_shrunken_list_is_accepted_with_force(tmp_path: Path) -> None:
    gfwtools(tmp_path, "update", "--source", str(LIST))
    source = tmp_path.with_name("short.txt")
    source.write_bytes(BAD["a shrunken list"][0])
    gfwtools(tmp_path, "update", "--source", str(source), "--force")
    assert (tmp_path / VAR / "gfwlist.domains").read_text() == "google.com\n"


def test_a_deny_list_may_be_a_url_whose_last_good_copy_is_kept(tmp_path: Path) -> None:
    shared = tmp_path.with_name(f"{tmp_path.name}.www")
    shared.mkdir()
    deny = shared / "deny.txt"
    deny.write_text("one.example\n")
    os.utime(deny, (0, 0))  # the server knows the version of a file by its time, in seconds
    domains = tmp_path / VAR / "gfwlist.domains"
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(shared))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/deny.txt"
        configure(tmp_path, f'[policy.gfwlist]\nsources = ["{LIST}"]\ndeny = ["{url}"]\n')
        gfwtools(tmp_path, "update")
        assert "one.example\n" in domains.read_text()
        deny.write_text("two.example\n")
        os.utime(deny, (1, 1))
        gfwtools(tmp_path, "update", "--dry-run")
        assert "one.example\n" in domains.read_text()
        gfwtools(tmp_path, "update")
        assert "two.example\n" in domains.read_text()
        assert "nothing new" in gfwtools(tmp_path, "update").stdout
        deny.write_text("<html>login</html>\n")
        assert "this is a web page" in gfwtools(tmp_path, "update").stderr
        server.shutdown()
    said = gfwtools(tmp_path, "update").stderr
    assert said == f"gfwtools: {url}: Connection refused; the last good copy stays in use\n"
    assert gfwtools(tmp_path, "update", "--offline").stderr == ""
    assert "two.example: tunnel" in gfwtools(tmp_path, "check", "domain", "two.example").stdout
    assert "two.example\n" in domains.read_text()


def test_a_url_of_the_user_never_fetched_is_an_error_and_offline_an_empty_list(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/allow.txt"
        configure(tmp_path, f'[policy.gfwlist]\nsources = ["{LIST}"]\nallow = ["{url}"]\n')
        said = gfwtools(tmp_path, "update", code=1).stderr
        assert said.startswith(f"gfwtools: {url}: Connection refused; ")
        assert not (tmp_path / CONF).exists()
        configure(tmp_path, f'[policy.gfwlist]\nallow = ["{url}"]\n')
        assert f"{url}: never fetched" in gfwtools(tmp_path, "update", "--offline").stderr


def test_a_list_is_compiled_once_and_the_last_good_one_not_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []

    def compile_lists(listing: Listing, **options: Any) -> compiler.Compiled:
        compiled.append(listing.text)
        return original(listing, **options)

    original = compiler.compile_lists
    monkeypatch.setattr(compiler, "compile_lists", compile_lists)
    config = load(tmp_path / "etc/gfwtools/config.toml", tmp_path)
    later = tmp_path.with_name("later.txt")
    later.write_text(LIST.read_text() + "||later.example\n")
    for source in (LIST, later, later):  # the third has nothing new
        update(config, sources=[str(source)])
    assert compiled == [LIST.read_text(), later.read_text()]


def test_a_list_is_measured_by_the_last_one_even_if_the_state_is_lost(tmp_path: Path) -> None:
    gfwtools(tmp_path, "update", "--source", str(LIST))
    (tmp_path / VAR / "state.json").unlink()
    source = tmp_path.with_name("short.txt")
    source.write_bytes(BAD["a shrunken list"][0])
    assert "min_share" in gfwtools(tmp_path, "update", "--source", str(source), code=1).stderr


def test_a_list_that_calls_itself_the_starter_list_is_measured_all_the_same(tmp_path: Path) -> None:
    source = tmp_path / "list.txt"
    title = "[AutoProxy 0.2.9]\n! Title: gfwtools starter list\n"
    source.write_text(title + "".join(f"||site{number}.com\n" for number in range(100)))
    gfwtools(tmp_path, "update", "--source", str(source))
    source.write_text(f"{title}||google.com\n")
    for lost in (False, True):
        if lost:
            (tmp_path / VAR / "state.json").unlink()
        assert "min_share" in gfwtools(tmp_path, "update", "--source", str(source), code=1).stderr
    gfwtools(tmp_path, "update", "--offline")
    assert not read_state(tmp_path / VAR / "state.json").of("gfwlist").starter


def test_no_list_is_measured_by_the_starter_list_whether_or_not_the_state_is_lost(tmp_path: Path) -> None:
    for lost in (False, True):
        gfwtools(tmp_path / str(lost), "update", "--offline")
        if lost:
            (tmp_path / str(lost) / VAR / "state.json").unlink()
        source = tmp_path / "list.txt"
        source.write_text("||google.com\n")
        gfwtools(tmp_path / str(lost), "update", "--source", str(source))


def test_a_wrong_count_in_the_state_refuses_no_list(tmp_path: Path) -> None:
    gfwtools(tmp_path, "update", "--source", str(LIST))
    state = tmp_path / VAR / "state.json"
    document = json.loads(state.read_text())
    document["policies"]["gfwlist"]["counts"] |= {"read": 10_000_000}
    state.write_text(json.dumps(document))
    source = tmp_path.with_name("later.txt")
    source.write_text(LIST.read_text() + "||later.example\n")
    gfwtools(tmp_path, "update", "--source", str(source))
    assert "later.example" in (tmp_path / VAR / "gfwlist.domains").read_text()


def test_a_single_bad_line_stops_nothing(tmp_path: Path) -> None:
    source = tmp_path / "list.txt"
    source.write_bytes(
        b"||good.com\n||b\x00ad\xff.com\nserver=/evil.com/1.1.1.1#53 \n||" + b"x" * 10_000_000 + b"\n||fine.com\n"
    )
    gfwtools(tmp_path, "update", "--source", str(source))
    assert (tmp_path / VAR / "gfwlist.domains").read_text() == "fine.com\ngood.com\n"


def test_on_a_host_that_never_reached_a_mirror_the_starter_list_is_used(tmp_path: Path) -> None:
    configure(tmp_path, '[policy.gfwlist]\nsources = ["http://127.0.0.1:9/list"]\n')
    result = gfwtools(tmp_path, "update")
    assert "starter list" in result.stderr
    assert len((tmp_path / VAR / "gfwlist.domains").read_text().splitlines()) >= 100
    # Still none: that is no failure either, and nothing is touched.
    before = contents(tmp_path)
    assert "starter list" in gfwtools(tmp_path, "update").stderr
    assert contents(tmp_path) == before


def test_where_a_good_list_is_and_no_mirror_answers_nothing_changes(tmp_path: Path) -> None:
    gfwtools(tmp_path, "update", "--source", str(LIST))
    configure(tmp_path, '[policy.gfwlist]\nsources = ["http://127.0.0.1:9/list", "/nowhere"]\n')
    before = contents(tmp_path)
    result = gfwtools(tmp_path, "update", code=1)
    assert "http://127.0.0.1:9/list" in result.stderr
    assert "/nowhere" in result.stderr
    assert contents(tmp_path) == before


def test_offline_takes_the_last_good_list_and_the_users_lists_of_now(tmp_path: Path) -> None:
    gfwtools(tmp_path, "update", "--source", str(LIST))
    (tmp_path / "etc/gfwtools").mkdir()
    (tmp_path / "etc/gfwtools/deny.txt").write_text("mine.example  # because\n")
    (tmp_path / "etc/gfwtools/allow.txt").write_text("google.com\n")
    gfwtools(tmp_path, "update", "--offline")
    domains = (tmp_path / VAR / "gfwlist.domains").read_text().splitlines()
    assert "mine.example" in domains
    assert "google.com" not in domains


def test_a_bad_line_of_the_users_is_told_with_its_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "etc/gfwtools").mkdir(parents=True)
    (tmp_path / "etc/gfwtools/deny.txt").write_text("good.example\n\nbad name.example\n")
    result = gfwtools(tmp_path, "update", "--source", str(LIST))
    assert "deny.txt: line 3: 'bad name.example'" in result.stderr


def test_policies_have_lists_sets_and_files_of_their_own(tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("work.example\n")
    configure(
        tmp_path,
        f'[policy.gfwlist]\nsources = ["{LIST}"]\n'
        f'[policy.work]\nformat = "domains"\nsources = ["{other}"]\nupstream = ["10.0.0.1"]\ninterface = "wg1"\n',
    )
    gfwtools(tmp_path, "update")
    text = (tmp_path / "etc/dnsmasq.d/work.conf").read_text()
    assert "server=/work.example/10.0.0.1#53\nipset=/work.example/work,work6\n" in text
    assert "work.example" not in (tmp_path / CONF).read_text()
    assert (tmp_path / VAR / "work.ipset").exists()


def test_when_one_policy_has_no_list_none_is_changed(tmp_path: Path) -> None:
    configure(tmp_path, f'[policy.gfwlist]\nsources = ["{LIST}"]\n')
    gfwtools(tmp_path, "update")
    before = contents(tmp_path)
    other = tmp_path.with_name("other.txt")
    other.write_text(LIST.read_text() + "||more.example\n")
    configure(tmp_path, f'[policy.gfwlist]\nsources = ["{other}"]\n[policy.work]\nsources = ["/nowhere"]\n')
    (tmp_path / VAR / "work.list").write_text("||a.com\n")  # it had one once
    result = gfwtools(tmp_path, "update", code=1)
    assert "/nowhere" in result.stderr
    after = contents(tmp_path)
    assert after[CONF] == before[CONF]


def test_a_held_lock_is_an_error_that_says_who_holds_it(tmp_path: Path) -> None:
    import sys

    program = (
        "import sys, time; from pathlib import Path; from gfwtools.storage.lock import lock\n"
        "with lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)\n"
    )
    lock = tmp_path / VAR / "lock"
    process = subprocess.Popen([sys.executable, "-c", program, str(lock)], stdout=subprocess.PIPE)
    try:
        assert process.stdout
        process.stdout.readline()
        result = gfwtools(tmp_path, "update", "--source", str(LIST), code=1, GFWTOOLS_LOCK_WAIT="0.2")
        assert f"process {process.pid}" in result.stderr
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere; the read-only mount in test_store is root's")
def test_a_folder_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "Permission denied" in gfwtools(tmp_path, "update", "--source", str(LIST), code=1).stderr


def test_an_update_in_quiet_says_nothing(tmp_path: Path) -> None:
    result = gfwtools(tmp_path, "-q", "update", "--source", str(LIST))
    assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize(
    "args", [["update", "--offline", "--source", "x"], ["update", "--source", "ftp://x/y"], ["update", "more"]]
)
def test_wrong_usage_exits_with_2(tmp_path: Path, args: list[str]) -> None:
    gfwtools(tmp_path, *args, code=2)


PORTAL = b"".join(b"item %d\n" % number for number in range(2300)) + b"www.hotel-wifi.example.com/login\n"


@pytest.mark.parametrize(
    "data",
    [
        PORTAL,
        b"<center>\n" + PORTAL,
        b"<title>Login</title>\nportal.example.com/login\n",
        b"Please log in\n<html>\nportal.example.com/login\n</html>\n",
        bytes(range(1, 256)) * 400,
        PLAIN.replace(b"! Title", b"! Checksum: AAAA\n! Title", 1),
    ],
    ids=range(6),  # not the data itself, which pytest puts into the environment
)
def test_a_page_with_a_line_that_looks_like_a_rule_is_no_list(tmp_path: Path, data: bytes) -> None:
    source = tmp_path / "page"
    source.write_bytes(data)
    gfwtools(tmp_path / "root", "update", "--source", str(source), code=1)
    assert not (tmp_path / "root" / CONF).exists()


def test_a_policy_that_left_the_configuration_takes_its_files_along(tmp_path: Path) -> None:
    configure(tmp_path, f'[policy.gfwlist]\nsources = ["{LIST}"]\n[policy.work]\nsources = ["{LIST}"]\n')
    gfwtools(tmp_path, "update")
    assert (tmp_path / "etc/dnsmasq.d/work.conf").exists()
    configure(tmp_path, f'[policy.gfwlist]\nsources = ["{LIST}"]\n')
    result = gfwtools(tmp_path, "update")
    assert "policy.work is no longer in the configuration" in result.stderr
    assert not [name for name in contents(tmp_path) if "work" in name]
    assert gfwtools(tmp_path, "update").stderr == ""


def test_a_damaged_list_is_no_reason_to_go_back_to_the_starter_list(tmp_path: Path) -> None:
    configure(tmp_path, '[policy.gfwlist]\nsources = ["http://127.0.0.1:9/list"]\n')
    gfwtools(tmp_path, "update", "--source", str(LIST))
    (tmp_path / VAR / "gfwlist.list").write_bytes(b"")
    before = contents(tmp_path)
    assert "damaged" in gfwtools(tmp_path, "update", "--offline", code=1).stderr
    gfwtools(tmp_path, "update", code=1)
    assert contents(tmp_path) == before


def test_a_state_that_names_foreign_files_has_none_of_them_removed(tmp_path: Path) -> None:
    gfwtools(tmp_path / "root", "update", "--source", str(LIST))
    victim = tmp_path / "victim"
    victim.write_text("mine")
    state = tmp_path / "root" / VAR / "state.json"
    document = json.loads(state.read_text())
    document["policies"]["gfwlist"]["files"]["/../victim"] = "x"
    state.write_text(json.dumps(document))
    gfwtools(tmp_path / "root", "update", "--source", str(LIST))
    assert victim.read_text() == "mine"


def test_a_damaged_state_is_told(tmp_path: Path) -> None:
    gfwtools(tmp_path, "update", "--source", str(LIST))
    (tmp_path / VAR / "state.json").write_text("{")
    assert "state.json: damaged" in gfwtools(tmp_path, "update", "--source", str(LIST)).stderr


def test_a_pipe_as_a_users_list_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    (tmp_path / "etc/gfwtools").mkdir(parents=True)
    os.mkfifo(tmp_path / "etc/gfwtools/allow.txt")
    assert "not a regular file" in gfwtools(tmp_path, "update", "--source", str(LIST), code=1).stderr


def test_folders_are_readable_by_all_whatever_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0o077)
    try:
        gfwtools(tmp_path / "root", "update", "--source", str(LIST))
    finally:
        os.umask(previous)
    assert all(path.stat().st_mode & 0o777 == 0o755 for path in (tmp_path / "root").rglob("*") if path.is_dir())


def test_quiet_and_verbose_may_stand_behind_the_command(tmp_path: Path) -> None:
    assert gfwtools(tmp_path, "update", "--source", str(LIST), "-q").stdout == ""


def test_an_empty_source_is_wrong_usage_and_not_this_folder(tmp_path: Path) -> None:
    assert "--source: it is empty" in gfwtools(tmp_path, "update", "--source", "", code=2).stderr.replace("'", "")


def test_a_single_domain_is_no_domains(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("||a.com\n")
    output = gfwtools(tmp_path, "update", "--source", str(tmp_path / "one.txt")).stdout
    assert "1 rule from" in output
    assert "1 domain through wg0" in output


@pytest.mark.parametrize(
    "keys",
    [
        'format = "domains"\nsources = ["/etc/gfwtools/wrok.txt"]',
        'format = "hosts"\nsources = ["http://127.0.0.1:1/x"]',
        'sources = ["/etc/gfwtools/wrok.txt", "file:///nowhere"]',
    ],
)
@pytest.mark.parametrize("args", [[], ["--offline"]], ids=["online", "offline"])
def test_the_starter_list_stands_in_for_the_mirrors_of_gfwlist_only(tmp_path: Path, keys: str, args: list[str]) -> None:
    configure(tmp_path, f"[policy.work]\n{keys}\n")
    before = contents(tmp_path / "etc")
    result = gfwtools(tmp_path, "update", *args, code=1)
    assert "policy.work: no " in result.stderr
    assert contents(tmp_path / "etc") == before
    assert not (tmp_path / "var/lib/gfwtools/state.json").exists()


statuses: list[str] = []


class _Mirror(BaseHTTPRequestHandler):
    """A mirror that knows its list by an ETag."""

    def do_GET(self) -> None:
        data = (FIXTURES / "list.txt").read_bytes()
        known = self.headers["If-None-Match"] == '"1"'
        self.send_response(304 if known else 200)
        self.send_header("ETag", '"1"')
        if not known:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if not known:
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        statuses.append(str(args[1]))


def test_the_password_of_a_source_is_not_kept_or_shown_and_its_validators_are_used(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Mirror) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"127.0.0.1:{server.server_port}/l.txt"
        configure(tmp_path, f'[policy.gfwlist]\nsources = ["http://user:SECRET@{place}"]\n')
        shown = [gfwtools(tmp_path, *words) for words in (["update"], ["update", "--json"], ["status"])]
        server.shutdown()
    state = (tmp_path / "var/lib/gfwtools/state.json").read_text()
    for text in (state, *(result.stdout + result.stderr for result in shown)):
        assert "SECRET" not in text
    assert list(read_state(tmp_path / "var/lib/gfwtools/state.json").of("gfwlist").mirrors) == [f"http://{place}"]
    assert statuses == ["200", "304"]


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("http://us:SEC/ret@127.0.0.1:1/l", "http://***@127.0.0.1:1/l"),
        ("http://us:12/SEC@127.0.0.1:1/l", "http://***@127.0.0.1:1/l"),
        ("http://us:p@SEC/ret@127.0.0.1:1/l", "http://***@127.0.0.1:1/l"),
        ("http://us:SEC?ret#@127.0.0.1:1/l", "http://***@127.0.0.1:1/l"),
        ("ftp://us:SEC/ret@127.0.0.1:1/l", "ftp://***@127.0.0.1:1/l"),
        ("file://us:SEC/ret@127.0.0.1/l", "file://***@127.0.0.1/l"),
    ],
)
def test_a_password_with_a_forbidden_character_is_shown_and_kept_nowhere(
    tmp_path: Path, source: str, shown: str
) -> None:
    result = gfwtools(tmp_path, "update", "--source", source, code=None)
    assert shown in result.stderr
    for text in (result.stderr, *(path.read_text() for path in tmp_path.rglob("*") if path.is_file())):
        assert "SEC" not in text


@pytest.mark.parametrize(
    "source", ["https://cdn.example/gh/a/b@master/l", "http://[::1]/a@b", "file:///a:b/c@d", "/a://b:c@d"]
)
def test_an_at_sign_in_a_path_hides_nothing(source: str) -> None:
    assert masked(source) == source


def test_on_a_terminal_a_path_is_shown_as_it_is_whatever_it_would_mean_to_a_program(tmp_path: Path) -> None:
    source = tmp_path / "a[" / "b]\x1b[red]list.txt"
    source.parent.mkdir()
    source.write_bytes(b"||google.com\n")
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "gfwtools", "--root", str(tmp_path), "update", "--source", str(source)]
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            check=False,
            timeout=60,
            env={**os.environ, "TERM": "xterm"},
        )
        shown = os.read(ours, 65536).decode()  # less than a terminal's buffer has room for
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 0
    assert "a[/b]\ufffd[red]list.txt" in shown


def test_a_source_whose_path_is_no_utf_8_leaves_a_state_that_can_be_used(tmp_path: Path) -> None:
    source = tmp_path / os.fsdecode(b"\xff.txt")
    source.write_bytes((FIXTURES / "list.txt").read_bytes())
    gfwtools(tmp_path, "update", "--source", str(source))
    assert not read_state(tmp_path / "var/lib/gfwtools/state.json").problem


@pytest.mark.parametrize(("format", "text"), [("domains", "desk\nhall\n"), ("hosts", "0 desk\n0 hall\n")])
def test_a_list_of_names_without_a_dot_is_not_taken_for_base64(tmp_path: Path, format: str, text: str) -> None:
    source = tmp_path / "names"
    source.write_text(text)
    configure(tmp_path, f'[policy.gfwlist]\nformat = "{format}"\nsources = ["{source}"]\n')
    gfwtools(tmp_path, "update")
    assert (tmp_path / "var/lib/gfwtools/gfwlist.domains").read_text() == "desk\nhall\n"


def test_a_long_line_is_cut_in_the_json(tmp_path: Path) -> None:
    source = tmp_path / "hosts"
    source.write_text("0.0.0.0 " + " ".join(f"a{number}.example.com" for number in range(100)) + "\n")
    configure(tmp_path, f'[policy.gfwlist]\nformat = "hosts"\nsources = ["{source}"]\n')
    rules = json.loads(gfwtools(tmp_path, "update", "--json").stdout)["policies"][0]["rules"]
    assert {rule["text"] for rule in rules} == {f"{source.read_text()[:1000]}..."}
