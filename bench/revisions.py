"""``python bench/revisions.py DIR``: every list below DIR through the whole of the pure half, and dnsmasq's verdict.

For the thousands of revisions that gfwlist has had since 2009, or any other heap of lists. Each is decoded, compiled in
both granularities and rendered for both layouts and backends; the account must add up, the output must be free of
redundant entries, and ``dnsmasq --test`` must accept every file. Printed is what failed; the exit code is then 1.

Lists that no published checksum can vouch for any more may be passed with ``--no-checksum``.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from gfwtools.config.load import loads
from gfwtools.errors import GfwtoolsError, ListError
from gfwtools.lists.compiler import compile_lists
from gfwtools.lists.decode import Decoded, decode
from gfwtools.lists.formats import Listing
from gfwtools.lists.locator import Reason
from gfwtools.lists.policy import Policy
from gfwtools.render.backends import TEXTS
from gfwtools.render.files import files_of

_NO_LISTS = (".py", ".md", ".git", ".json")


def decoded(data: bytes, *, checksum: bool) -> Decoded:
    """The list; without its checksum line where that is not to be looked at.

    :raises ListError: it is none.
    """
    try:
        return decode(data)
    except ListError as error:
        if checksum or "the checksum is wrong" not in str(error):
            raise
    import base64

    text = data if b"." in data else base64.b64decode(data)
    return decode(re.sub(rb"(?im)^[ \t]*![ \t]*checksum.*$", b"! no checksum", text))


def is_smallest(policy: Policy) -> str:
    """An entry that could be left out, in words; the empty text for none."""
    cover = policy.cover()
    patterns = dict.fromkeys(cover.tunnelled, True) | dict.fromkeys(cover.freed, False)
    for pattern, tunnel in patterns.items():
        rest = pattern.removeprefix("*.")
        above = rest != pattern and patterns.get(rest)
        while above in (None, False) and "." in rest:
            rest = rest.partition(".")[2]
            above = patterns.get(f"*.{rest}", patterns.get(rest))
            if above is not None:
                break
        if bool(above) == tunnel:
            return f"{pattern} is redundant"
    return ""


def faults(path: Path, *, checksum: bool, dnsmasq: str | None) -> list[str]:
    """What is wrong with a revision, a line each."""
    try:
        return list(_faults(path, checksum=checksum, dnsmasq=dnsmasq))
    except Exception as error:  # whatever it is, the other thousands are looked at as well
        return [f"{type(error).__name__}: {error}"]


def _faults(path: Path, *, checksum: bool, dnsmasq: str | None) -> Iterator[str]:
    try:
        listing = decoded(path.read_bytes(), checksum=checksum)
    except GfwtoolsError as error:
        yield f"refused: {error}"
        return
    for granularity in ("registrable", "host"):
        start = time.process_time()
        compiled = compile_lists(Listing(path.name, listing.text), granularity=granularity)
        took = time.process_time() - start
        counts = compiled.counts()
        if counts.read != counts.applied + counts.widened + counts.redundant + sum(counts.dropped.values()):
            yield f"{granularity}: the account does not add up: {counts}"
        if took > 1 + counts.read / 50_000:
            yield f"{granularity}: {took:.1f} s for {counts.read:,} rules"
        for outcome in compiled.outcomes():
            reason = outcome.target.reason
            if reason is Reason.TLD and len(outcome.rule.host) > 2:
                yield f"suffix: {outcome.target.detail} is dropped; where it is meant, add it to data/suffixes.txt"
        if not compiled.cover.tunnelled:
            yield f"{granularity}: not a single domain of {counts.read:,} rules"
        if fault := is_smallest(compiled.policy):
            yield f"{granularity}: {fault}"
        for layout in ("paired", "split"):
            config = loads(f'[dns]\nlayout = "{layout}"\n[policy.gfwlist]\ngranularity = "{granularity}"\n')
            for backend, text in TEXTS.items():
                files = files_of(config, config.policies[0], compiled.cover, compiled.seeds, listing, text)
                for target, data in files.items():
                    fault = refused(dnsmasq, data) if dnsmasq and target.suffix in (".conf", ".servers") else ""
                    if fault:
                        yield f"{granularity}, {layout}, {backend}, {target.name}: {fault}"


def refused(dnsmasq: str, data: bytes) -> str:
    """What ``dnsmasq --test`` says against a file; the empty text where it takes it."""
    # The split layout's main file only points to the other one.
    lines = b"\n".join(line for line in data.split(b"\n") if not line.startswith(b"servers-file="))
    with tempfile.NamedTemporaryFile(suffix=".conf") as file:
        file.write(lines)
        file.flush()
        command = [dnsmasq, "--test", f"--conf-file={file.name}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 else " ".join(done.stderr.split())


def main() -> int:
    parser = argparse.ArgumentParser(description="Compile every list below a folder and have dnsmasq test the output.")
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--no-checksum", action="store_true", help="Do not refuse a list whose checksum is wrong.")
    arguments = parser.parse_args()
    paths = sorted(
        path
        for path in arguments.folder.rglob("*")
        if path.is_file() and path.suffix not in _NO_LISTS and ".git" not in path.parts
    )
    if not paths:
        parser.error(f"no files in {arguments.folder}")
    dnsmasq = shutil.which("dnsmasq", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if not dnsmasq:
        print("dnsmasq is not installed, so no file is tested with it", file=sys.stderr)
    look = partial(faults, checksum=not arguments.no_checksum, dnsmasq=dnsmasq)
    kinds: Counter[str] = Counter()
    failed = 0
    with ProcessPoolExecutor() as pool:
        for path, found in zip(paths, pool.map(look, paths, chunksize=4), strict=True):
            failed += bool(found)
            for fault in found:
                kinds[fault.partition(":")[0]] += 1
                print(f"{path.relative_to(arguments.folder)}: {fault}")
    print(f"{len(paths):,} lists, {failed:,} with a fault{'' if not kinds else ': '}", end="")
    print(", ".join(f"{kind} ({count:,})" for kind, count in kinds.most_common()))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
