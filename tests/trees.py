"""The files of a host below a folder."""

import os
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


def tree_of(root: Path) -> dict[str, bytes | str]:
    """What is below ``root``: the content and mode of each file, where each link leads, the folders."""
    found: dict[str, bytes | str] = {}
    for folder, folders, names in os.walk(root):
        for name in [*folders, *names]:
            path = Path(folder) / name
            key = str(path.relative_to(root))
            if path.is_symlink():
                found[key] = f"-> {os.readlink(path)}"
            else:
                found[key] = "folder" if path.is_dir() else path.read_bytes() + f"{path.stat().st_mode:o}".encode()
    return found
