"""The one error that is the user's to mend, and how what is quoted in it stays short."""

import difflib
from collections.abc import Iterable

_WORD, _LINE = 600, 2000  # characters that a word, and a whole line, may have


class InputError(ValueError):
    """Bad input: one line that says what is wrong, where, and what to do.

    The command prints it as `afpjax: error: …` and exits with status 2. Whatever a message quotes,
    it is one line of printable characters and of bounded length.
    """

    def __init__(self, message: str) -> None:
        words = (shortened(word, _WORD) for word in printable(message).split())
        super().__init__(shortened(" ".join(words), _LINE))


class Halted(Exception):
    """A run cannot go on for now, by no fault of what was asked; what it has done is kept."""


def one_line(error: BaseException) -> str:
    """The first line of what an exception says, or its kind where it says nothing."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    said = str(error).strip().split("\n")[0]
    return shortened(said, _WORD) or type(error).__name__


def quoted(value: object, most: int = 60) -> str:
    """A value as Python writes it, cut where that is long."""
    try:
        text = repr(value)
    except RecursionError:
        return "a value that is nested too deeply"
    except ValueError:  # Python does not write whole numbers of more than 4,300 digits
        return "a number of thousands of digits"
    return shortened(text, most)


def shortened(text: str, most: int = 60) -> str:
    """The text, or as much of it as leaves room for an ellipsis."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def printable(text: str) -> str:
    """The text with what would move a terminal's cursor, or is no character, written as escapes."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each.isspace() else ascii(each)[1:-1] for each in text
    )


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean \\`x\\`?` with the known word that is most like this one, or nothing."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean `{found[0]}`?" if found else ""


def listed(words: Iterable[str]) -> str:
    """`a, b or c`."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last
