"""What others wrote reaches no terminal raw: every command on a real one, with control characters wherever others write."""

import json
import re
from pathlib import Path

import pytest
from cli import gfwtools
from faults import Server, raw, redirect
from terminals import written

#: Sets a title, moves the cursor, rings, begins a sequence of C1 (ECMA-48), overwrites the line.
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b2J\x08\r"
#: What we write ourselves: colours, and the cursor of a progress bar.
OURS = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\x1b\[[0-9]*[AKG]|\r(?=\n)|\r\x1b\[K")
LIST = f"[AutoProxy 0.2.9]\n! Last Modified: {EVIL}\n||google.com\n||evil{EVIL}.example\n|http://www.{EVIL}x.example/\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc/gfwtools").mkdir(parents=True)
    (tmp_path / "list.txt").write_text(LIST, newline="")
    (tmp_path / "etc/gfwtools/config.toml").write_text(f'[policy.gfwlist]\nsources = ["{tmp_path}/list.txt"]\n')
    gfwtools(tmp_path, "update")
    (tmp_path / "etc/gfwtools/deny.txt").write_text(f"{EVIL}.example\nmine.example # {EVIL}\n", newline="")
    (tmp_path / "etc/resolv.conf").write_text(f"nameserver {EVIL}\n", newline="")
    (tmp_path / "etc/dnsmasq.conf").write_text(f"server=/google.com/{EVIL}\naddress=/{EVIL}/192.0.2.1\n", newline="")
    state = tmp_path / "var/lib/gfwtools/state.json"
    text = state.read_text()
    document = json.loads(text)
    policy = document["policies"]["gfwlist"]
    policy["source"] = policy["answered"] = policy["list_date"] = EVIL
    for change in policy["history"]:
        change["source"] = EVIL
    state.write_text(json.dumps(document))
    (tmp_path / "var/lib/gfwtools/lock").write_text(f"1\n{EVIL}\n{EVIL}\n", newline="")
    return tmp_path


COMMANDS = [
    ("-v", "update"),
    ("-v", "update", "--dry-run"),
    ("update", "--source", f"/no/{EVIL}"),
    ("check", "domain", "google.com", f"evil{EVIL}.example", "mine.example"),
    ("check", "ip", "192.0.2.1"),
    ("check", "ip", EVIL),
    ("check", "host"),
    ("deny", f"{EVIL}.example"),
    ("deny", "--dry-run", "other.example"),
    ("allow", "mine.example"),
    ("status",),
    ("status", "--history"),
    ("export", "domains"),
    ("export", EVIL),
    ("up", "--dry-run"),
    ("bootstrap", "--dry-run"),
    ("bootstrap", "--interface", EVIL),
    ("trace", EVIL),
    ("warm", EVIL),
    (EVIL,),
    (f"--{EVIL}",),
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words).replace(EVIL, "EVIL"))
def test_no_command_writes_control_characters_of_others_to_a_terminal(root: Path, words: tuple[str, ...]) -> None:
    assert_clean(written(["-m", "gfwtools", "--root", str(root), *words], 100, code=None))


@pytest.mark.parametrize("options", [("--config", f"/no/{EVIL}"), ("--root", f"/no/{EVIL}")], ids=" ".join)
def test_no_path_of_others_is_written_raw(options: tuple[str, str]) -> None:
    assert_clean(written(["-m", "gfwtools", *options, "check", "domain", "google.com"], 100, code=None))
    assert_clean(written(["-m", "gfwtools", *options, "update", "--offline"], 100, code=None))


@pytest.mark.parametrize(
    "behaviour",
    [
        raw(f"HTTP/1.1 500 {EVIL}\r\nContent-Length: 0\r\n\r\n".encode("latin-1")),
        raw(f"HTTP/1.1 200 OK\r\nContent-Type: text/{EVIL}\r\nContent-Length: 5\r\n\r\n{EVIL[:5]}".encode("latin-1")),
        redirect("http://127.0.0.1:1/%1b%5d0;" + "owned\x07"),
    ],
    ids=["reason", "type", "redirect"],
)
def test_no_answer_of_a_server_is_written_raw(root: Path, behaviour: object) -> None:
    with Server(behaviour) as server:  # type: ignore[arg-type]
        assert_clean(written(["-m", "gfwtools", "--root", str(root), "update", "--source", server.url], 100, code=None))


def assert_clean(text: str) -> None:
    rest = OURS.sub("", text)
    assert "Traceback" not in rest
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", rest), repr(rest)
    assert rest.strip()
