"""Where afpjax keeps what it would otherwise make again: trained weights, compiled programs."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The user's cache folder for afpjax: `AFPJAX_CACHE`, else `afpjax` in the XDG cache folder.

    Nothing is created; whoever writes there makes the folder. A leading `~` is expanded.
    """
    own = os.environ.get("AFPJAX_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared).expanduser() if shared else Path.home() / ".cache") / "afpjax"
