"""The names of the policies' routing tables (ip-route(8), FILES): a file of ours, or lines of ours in ``rt_tables``."""

from dataclasses import dataclass, replace
from pathlib import Path

from gfwtools.config.model import Paths
from gfwtools.plumbing.plan import Kind, Piece, State
from gfwtools.plumbing.wanted import TableName
from gfwtools.storage import atomic
from gfwtools.system import ownership
from gfwtools.system.commands import Command
from gfwtools.system.step import Step

__all__ = ["NamesState", "TableNames", "observe"]

_FOLDER = "/etc/iproute2/rt_tables.d"
_FILE = "/etc/iproute2/rt_tables"
#: Where iproute2 keeps its own since 6.5; then there may be nothing in /etc.
_VENDOR = "/usr/share/iproute2"


@dataclass(frozen=True, slots=True)
class NamesState:
    """The file in which our names go, and what is in it."""

    file: Path
    text: str | None
    """The whole content; None for no such file."""
    shared: bool = False
    """The file is the host's: only the lines with our comment are ours."""
    taken: frozenset[int | str] = frozenset()
    """Numbers and names that other programs use."""
    folders: tuple[str, ...] = ()
    """Folders to be made with the file, outermost first, and to be removed with it."""

    def with_names(self, names: tuple[TableName, ...]) -> "NamesState":
        """The same file with just these names of ours; a number that has a name already keeps that."""
        lines = [
            f"{name.table}\t{name.name}\t# {ownership.TAG}\n"
            for name in names
            if name.table not in self.taken and name.name not in self.taken
        ]
        if not self.shared:
            return replace(self, text="".join(lines) or None)
        kept = [line for line in (self.text or "").splitlines(keepends=True) if not ownership.is_name_of_table(line)]
        if lines and kept and not kept[-1].endswith("\n"):
            kept[-1] += "\n"
        return replace(self, text="".join(kept + lines))


class TableNames:
    """The part of the plumbing that is for people: what ``ip rule`` calls the tables."""

    def pieces(self, there: NamesState, wanted: NamesState) -> list[Piece]:
        if there.text == wanted.text:
            state = State.OK
        else:
            is_there = any(map(ownership.is_name_of_table, (there.text or "").splitlines()))
            state = State.MISMATCH if is_there else State.MISSING
        return [Piece(f"names of tables in {wanted.file}", state, kind=Kind.NAMES)]

    def steps(self, there: NamesState, wanted: NamesState) -> list[Step]:
        if there.text == wanted.text:
            return []
        why = "ip rule and ip route speak of the policy by its name" if wanted.text else "not wanted any more"
        return [Step(f"names of tables in {wanted.file}", why, _write(there, wanted), _write(wanted, there), True)]


def _write(old: NamesState, new: NamesState) -> tuple[Command, ...]:
    """The commands that bring the file from ``old`` to ``new``."""
    if new.text is None:
        gone = [Command(("rm", "-f", str(old.file)))]
        gone += [Command(("rmdir", folder)) for folder in reversed(old.folders)]
        return tuple(gone)
    folders = [Command(("mkdir", folder)) for folder in new.folders] if old.text is None else []
    return (*folders, Command(("tee", str(new.file)), new.text))


def observe(paths: Paths, made: tuple[str, ...] = ()) -> NamesState:
    """Look at the files.

    :param made: folders that an earlier ``up`` has made and that are to go with the file.
    :raises StoreError: one of them cannot be read.
    """
    folder, file = paths.at(_FOLDER), paths.at(_FILE)
    shared = not folder.is_dir() and file.is_file()
    ours = file if shared else folder / f"{ownership.TAG}.conf"
    others = [file, *sorted(folder.glob("*.conf")), *sorted(paths.at(f"{_VENDOR}/rt_tables.d").glob("*.conf"))]
    if not file.is_file():
        others.append(paths.at(f"{_VENDOR}/rt_tables"))
    taken: set[int | str] = set()
    for other in others:
        if other != ours or shared:
            taken |= _names(_text(other) or "")
    missing = [str(part) for part in (folder.parent.parent, folder.parent, folder) if not part.is_dir()]
    return NamesState(ours, _text(ours), shared, frozenset(taken), () if shared else tuple(missing) or made)


def _text(path: Path) -> str | None:
    data = atomic.read(path)
    return None if data is None else data.decode("utf-8", "replace")


def _names(text: str) -> set[int | str]:
    """The numbers and names in a file of names, without our own lines."""
    taken: set[int | str] = set()
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) == 2 and not ownership.is_name_of_table(line):
            try:
                taken |= {int(words[0], 0), words[1]}
            except ValueError:
                continue
    return taken
