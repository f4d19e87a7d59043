"""Where afpjax keeps what it would otherwise make again: trained weights, compiled programs."""

import os
from pathlib import Path

from afpjax.inputs.errors import InputError


def cache_folder() -> Path:
    """The user's cache folder for afpjax: `AFPJAX_CACHE`, else `afpjax` in the XDG cache folder.

    Nothing is created; whoever writes there makes the folder. A leading `~` is expanded. Raises
    `InputError` where that leads to nobody's home.
    """
    own, shared = os.environ.get("AFPJAX_CACHE"), os.environ.get("XDG_CACHE_HOME")
    named = "AFPJAX_CACHE" if own else "XDG_CACHE_HOME"
    try:
        if own:
            return Path(own).expanduser()
        return (Path(shared).expanduser() if shared else Path.home() / ".cache") / "afpjax"
    except RuntimeError as error:  # no such user, or one without a home
        raise InputError(
            f"{named}: {own or shared or 'no home folder'} leads nowhere ({error}); set "
            "AFPJAX_CACHE to a folder that can be written"
        ) from error
