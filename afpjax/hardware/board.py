"""A whole edge computer, such as a Jetson: what it costs to run a part of a network on it.

An accelerator (`platform.py`) is known by its array of multipliers and the energy of every access.
Of a board only the outside is known: frames per second, megabytes and watts. So it is described by
a roofline with a few constants, and its file says which of them come from a data sheet and which
are fitted to what. Shipped boards are the files of `boards/`, beside this one.
"""

from pathlib import Path

from afpjax.hardware.platform import read_shipped_or_own, shipped_names
from afpjax.inputs.toml_tables import Name, NonNegative, Positive, PositiveOrInfinite, table


@table
class Board:
    """One edge computer; `neurons/resources.py` has the equations.

    Memory in MB (1e6 bytes), times in ms, power in W. A layer takes `launch_ms` and then the longer
    of MACs / `peak_gmac_s` and bytes / `bandwidth_gb_s`; an image takes `image_ms` besides (read,
    scaled, handed over), a message to another board `message_ms` of the host's time.
    `unfolded_bytes` is what a layer's product needs for each element of its unfolded input.
    """

    name: Name
    description: str
    memory_mb: Positive  # what there is
    base_mb: NonNegative  # what the runtime takes before any weight is loaded
    unfolded_bytes: NonNegative
    peak_gmac_s: PositiveOrInfinite
    bandwidth_gb_s: PositiveOrInfinite
    launch_ms: NonNegative
    image_ms: NonNegative
    message_ms: NonNegative
    base_w: Positive  # at all times
    compute_w: NonNegative  # besides, while layers are computed


def load_board(name: str | Path, setting: str = "distribute.board") -> Board:
    """One board: a shipped name, or the path of a TOML file of the same form.

    InputError, opened by `setting`: neither of them, or a description that does not hold.
    """
    return read_shipped_or_own(Board, str(name), "boards", setting)[0]


def shipped_boards() -> tuple[str, ...]:
    """Names of the boards that come with afpjax."""
    return shipped_names("boards")
