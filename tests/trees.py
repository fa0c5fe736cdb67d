"""The files of a host below a folder."""

from pathlib import Path

from gfwtools.config import Config, loads

#: Path below the root -> content; a content ``-> TARGET`` makes a link.
Tree = dict[str, str]


def host(root: Path, tree: Tree, text: str = "") -> Config:
    """A host below ``root`` with these files, and the configuration ``text``."""
    for path, content in tree.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith("-> "):
            place.symlink_to(content[3:])
        else:
            place.write_text(content)
    return loads(text, root=root)
