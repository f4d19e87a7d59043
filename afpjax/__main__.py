"""`python -m afpjax`, and the command `afpjax`: the same as `python -m afpjax.run`."""

from typing import NoReturn

from afpjax.command import interrupts


def entry() -> NoReturn:
    """The command as a process of its own."""
    interrupts.start()  # before what takes long to import
    from afpjax.command.main import main

    interrupts.end(main())


if __name__ == "__main__":
    entry()
