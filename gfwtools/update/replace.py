"""Puts the files of an update in place, in a transaction."""

from collections.abc import Collection
from pathlib import Path

from gfwtools.config.model import Config
from gfwtools.errors import StoreError
from gfwtools.storage.journal import Transaction
from gfwtools.update.values import Update

__all__ = ["NAME", "NOTHING", "replace"]

#: The transaction of an update; made with the lock held.
NAME = "update"
#: The outcome of a failed update that has changed only files, and put them back.
NOTHING = "nothing was changed"


def replace(config: Config, update: Update, foreign: Collection[Path], transaction: Transaction) -> None:
    """Replace the files of all policies; the state goes into place last.

    :param foreign: files that are not ours. Their originals are kept, and teardown puts them back.
    :raises StoreError: a file cannot be written.
    """
    transaction.write({_target(config, path): data for path, data in update.edits.items()}, mode=None)
    transaction.write(update.files(config), keep=foreign, last=config.paths.state, gone=update.obsolete)


def _target(config: Config, path: Path) -> Path:
    """A file of the user's, or the one that a link of the user's leads to: the link itself stays.

    :raises StoreError: it leads out of the root.
    """
    target = path.resolve() if path.is_symlink() else path
    if not target.is_relative_to(config.root):
        raise StoreError(f"{path}: a link to {target}, which is not below {config.root}", "edit that file yourself")
    return target
