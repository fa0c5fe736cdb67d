"""The real lists, where somebody has them: nothing missed, nothing ignored, nothing redundant."""

from pathlib import Path

import pytest
from dnsmasq_files import dnsmasq_accepts
from matching import longest, read_conf, verdict

from gfwtools.config.model import PolicyConfig
from gfwtools.lists.compiler import Status, compile_lists
from gfwtools.lists.decode import decode
from gfwtools.lists.formats import Listing
from gfwtools.render import dnsmasq


@pytest.mark.parametrize("granularity", ["registrable", "host"])
def test_a_real_list_comes_out_whole(real_lists: list[Path], granularity: str, tmp_path: Path) -> None:
    for path in real_lists:
        text = decode(path.read_bytes()).text
        compiled = compile_lists(Listing(path.name, text), granularity=granularity)
        rendered = dnsmasq.paired(compiled.cover, PolicyConfig())
        conf = read_conf(rendered)
        # The plainest rules, read here by other means than ours.
        lines = [line.strip() for line in text.splitlines()]
        exceptions = {line[4:] for line in lines if line.startswith("@@||") and not set("/*") & set(line)}
        hosts = {line[2:] for line in lines if line.startswith("||") and not set("/*!:") & set(line)} - {"mp"}
        freed = {host for host in hosts if any(host == name or host.endswith(f".{name}") for name in exceptions)}
        missed = [host for host in hosts - freed if verdict(host, conf) != "tunnel"]
        ignored = [name for name in exceptions if verdict(name, conf) != "direct"]
        ignored += [name for name in exceptions if longest(name, conf["ipset"]) not in (None, "gfwlist_direct")]
        assert (missed, ignored) == ([], [])
        for pattern in conf["server"]:
            rest = {other: value for other, value in conf["server"].items() if other != pattern}
            name = pattern.replace("*", "zz")
            assert verdict(name, {"server": rest}) != verdict(name, conf), f"{pattern} is redundant"
        counts = compiled.counts()
        assert counts.read == counts.applied + counts.widened + counts.redundant + sum(counts.dropped.values())
        assert sum(1 for outcome in compiled.outcomes() if outcome.status is Status.DROPPED) == sum(
            counts.dropped.values()
        )
        file = tmp_path / f"{path.name}.{granularity}.conf"
        file.write_text(rendered)
        dnsmasq_accepts(file)
