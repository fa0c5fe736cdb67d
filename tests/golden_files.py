"""What comes out, kept in one file a case below ``tests/golden``: a commit that changes it shows how.

``make golden`` (``GOLDEN=write`` in the environment) writes the files anew, where a change is meant.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

__all__ = ["agree", "cases_kept", "joined"]

GOLDEN = Path(__file__).parent / "golden"
IS_WRITING = os.environ.get("GOLDEN") == "write"


def agree(folder: str, case: str, text: str) -> None:
    """``text`` is what the file of this case holds."""
    path = GOLDEN / folder / case
    if IS_WRITING:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), f"{folder}/{case} has changed; where that is meant: make golden"


def joined(texts: Mapping[str, str]) -> str:
    """Several files as one, each below its path, as head(1) prints them."""
    return "\n".join(f"==> {path} <==\n{text}" for path, text in sorted(texts.items()))


def cases_kept(folder: str, cases: Iterable[str]) -> bool:
    """Are the files in the folder those of these cases, and no other? ``make golden`` removes those of no case."""
    kept, wanted = {path.name for path in (GOLDEN / folder).iterdir()}, set(cases)
    if IS_WRITING:
        for name in kept - wanted:
            (GOLDEN / folder / name).unlink()
        return True
    return kept == wanted
