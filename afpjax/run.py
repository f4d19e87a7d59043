"""`python -m afpjax.run`: the entry, nothing else."""

from afpjax.command import interrupts

if __name__ == "__main__":
    interrupts.start()  # before what takes long to import

from afpjax.command.main import main

__all__ = ["main"]

if __name__ == "__main__":
    interrupts.end(main())
