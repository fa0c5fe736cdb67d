"""Puts the files of an update in place, in a transaction."""

from collections.abc import Collection
from pathlib import Path

from gfwtools.config.model import Config
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
    transaction.write(update.files(config), keep=foreign, last=config.paths.state, gone=update.obsolete)
