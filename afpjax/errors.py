"""The one error that is the user's to mend."""


class InputError(ValueError):
    """Bad input: one line that says what is wrong, where, and what to do.

    The command prints it as `afpjax: error: …` and exits with status 2.
    """


class Halted(Exception):
    """A run cannot go on for now, by no fault of what was asked; what it has done is kept."""
