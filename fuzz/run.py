"""``make fuzz``: atheris, guided by coverage, tries to break the claims of fuzz/claims.py; bounded in time.

``python fuzz/run.py`` runs each target in a process of its own for FUZZ_SECONDS (60) and keeps what it found below
fuzz/corpus/ and fuzz/crashes/ (neither is part of the repo). ``python fuzz/run.py TARGET [libFuzzer's options]`` runs
one, and with a file as its argument shows a crash again.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGETS = ("decode", "line", "config", "state", "memory")
#: What the search begins with; without a dictionary it finds no list at all.
SEEDS = {
    "decode": [
        b"[AutoProxy 0.2.9]\n! Checksum: AAAAAAAAAAAAAAAAAAAAAA\n! Title: x\n||google.com\n@@||www.google.com\n",
        b"||cdn*.example.co.uk\n|http://1.2.3.4/\n/^https?:\\/\\/[^\\/]+blogspot\\.(.*)/\ngoogle.*\n||*.ck\n@@||*.a.b\n",
        b"W0F1dG9Qcm94eSAwLjIuOV0KfHxnb29nbGUuY29tCg==",
        b"server=/a.com/b.com/1.1.1.1\n127.0.0.1 a.com b.com\n1.2.3.0/24\n",
        b"\xff\xfe|\0|\0a\0.\0c\0o\0m\0",
    ],
    "line": [
        b"||google.com",
        b"@@|https://a.b.example:443/path?x",
        b"/^https?:\\/\\/([^\\/]+\\.)*google\\.(.*)/",
        b"|http://[2001:db8::1]:80/",
        "||例子.中国^".encode(),
        b"docs.google.com*View",
        b"https://user@www.example.com:8443/#x",
    ],
    "config": [
        b'[fetch]\ntimeout = 20\nproxy = "socks5://127.0.0.1:1080"\n[policy.gfwlist]\nmark = 0xca6c\n',
        b'[policy.gfwlist]\nnat = "snat:10.0.0.1"\nseeds = ["10.0.0.0/8"]\nallow = ["/a.txt"]\n',
        b'[dns]\nlayout = "split"\nconf_dir = "/etc/dnsmasq.d"\nmanager = "command"\nrestart = ["/bin/true"]\n',
        b'[policy.work]\nformat = "domains"\nsources = ["/x"]\nupstream = ["10.0.0.1#53"]\ninterface = "wg1"\n',
    ],
    "state": [
        b'{"version": 1, "policies": {"gfwlist": {"source": "u", "starter": false, "files": {"/a": "b"}, "mirrors": '
        b'{"u": {"etag": "e", "last_modified": "l", "digest": "d"}}, "history": [{"date": "d", "source": "u", '
        b'"digest": "d", "counts": {"read": 1}, "domains": 1, "added": 1, "removed": 0}]}}}'
    ],
    "memory": [
        b"||site%.com",
        b"||www.s%.co.uk\n@@||x%.com\n||*.y%.com\n||z%.google.*",
        b"0.0.0.0 a%.com b%.com\nserver=/c%.com/d%.com/1.1.1.1",
        b"||10%.1.2.3\n/^https?:\\/\\/a%\\.com/\n||\xe4\xbe\x8b%.com\n! \xf0\x9f\x98\x80",
    ],
}


def fuzz(target: str, options: list[str]) -> None:
    """Run one target in this process; atheris ends it."""
    import atheris

    with atheris.instrument_imports(include=["gfwtools", "idna", "tomllib"]):
        from claims import CLAIMS
    atheris.Setup([sys.argv[0], *options], CLAIMS[target])
    atheris.Fuzz()


def main() -> int:
    if len(sys.argv) > 1:
        fuzz(sys.argv[1], sys.argv[2:])
        return 0
    seconds = int(os.environ.get("FUZZ_SECONDS", "60"))
    failed = []
    for target in TARGETS:
        corpus, crashes = HERE / "corpus" / target, HERE / "crashes" / target
        for folder in (corpus, crashes):
            folder.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(SEEDS[target]):
            (corpus / f"seed{number}").write_bytes(seed)
        options = [
            f"-max_total_time={seconds}",
            "-timeout=5",  # seconds for one input: nothing here may take longer than linear time
            "-rss_limit_mb=2048",
            "-max_len=4096",
            "-verbosity=0",
            "-print_final_stats=1",
            f"-artifact_prefix={crashes}/",
        ]
        command = [sys.executable, __file__, target, *options, str(corpus)]
        print(f"{target}: {seconds} s", flush=True)
        done = subprocess.run(command, timeout=seconds + 60, check=False)
        if done.returncode:
            failed.append(target)
    print(f"failed: {', '.join(failed)}; the inputs are in fuzz/crashes/" if failed else "nothing was found")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
