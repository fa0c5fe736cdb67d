"""Text of others on somebody's terminal."""

__all__ = ["printable"]


def printable(text: str, limit: int = 120) -> str:
    """A text of a list for a terminal: no control characters, and not without end."""
    shown = "".join(character if character.isprintable() else "\ufffd" for character in text[: limit + 1])
    return shown if len(shown) <= limit else f"{shown[: limit - 3]}..."
