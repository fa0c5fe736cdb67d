"""The files of a host below a folder."""

from pathlib import Path

from gfwtools.config.load import loads
from gfwtools.config.model import Config

#: Path below the root -> content; a content ``-> TARGET`` makes a link.
Tree = dict[str, str]

#: The line of Debian's start scripts that hands CONFIG_DIR of /etc/default/dnsmasq to dnsmasq.
DEBIAN_SCRIPT: Tree = {"etc/init.d/dnsmasq": "start-stop-daemon --exec $DAEMON -- ${CONFIG_DIR:+ -7 ${CONFIG_DIR}}\n"}


def plant(root: Path, tree: Tree) -> None:
    """Write the files below ``root``."""
    for path, content in tree.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith("-> "):
            place.symlink_to(content[3:])
        else:
            place.write_text(content)


def host(root: Path, tree: Tree, text: str = "") -> Config:
    """A host below ``root`` with these files, and the configuration ``text``."""
    plant(root, tree)
    return loads(text, root=root)
