"""Text from outside, made safe for a terminal."""

__all__ = ["lines", "printable"]


def printable(text: str, limit: int = 120) -> str:
    """The text without control characters, cut to ``limit`` characters."""
    shown = "".join(character if character.isprintable() else "\ufffd" for character in text[: limit + 1])
    return shown if len(shown) <= limit else f"{shown[: limit - 3]}..."


def lines(text: str) -> str:
    """The text, of any length and with its line ends, without other control characters."""
    return "".join(character if character.isprintable() or character == "\n" else "\ufffd" for character in text)
