"""A whole edge computer, such as a Jetson: what it costs to run a part of a network on it.

An accelerator (`platform.py`) is known by its array of multipliers and the energy of every access.
Of a board only the outside is known: frames per second, megabytes and watts. So it is described by
a roofline with a few constants, and its file says which of them come from a data sheet and which
are fitted to what. Shipped boards are the files of `boards/`, beside this one.
"""

from dataclasses import dataclass
from pathlib import Path

from afpjax.hardware.schema import from_table, nearest, need, need_positive
from afpjax.inputs.files import read_toml

_FOLDER = Path(__file__).parent / "boards"


@dataclass(frozen=True)
class Board:
    """One edge computer; `neurons/resources.py` has the equations.

    Memory in MB (1e6 bytes), times in ms, power in W. A layer takes `launch_ms` and then the longer
    of MACs / `peak_gmac_s` and bytes / `bandwidth_gb_s`; an image takes `image_ms` besides (read,
    scaled, handed over), a message to another board `message_ms` of the host's time.
    `unfolded_bytes` is what a layer's product needs for each element of its unfolded input.
    """

    name: str
    description: str
    memory_mb: float  # what there is
    base_mb: float  # what the runtime takes before any weight is loaded
    unfolded_bytes: float
    peak_gmac_s: float
    bandwidth_gb_s: float
    launch_ms: float
    image_ms: float
    message_ms: float
    base_w: float  # at all times
    compute_w: float  # besides, while layers are computed

    def __post_init__(self) -> None:
        need(bool(self.name), "`name` is empty: give the board one")
        need_positive(self, "memory_mb", "base_w")
        need_positive(self, "peak_gmac_s", "bandwidth_gb_s", infinite=True)
        need_positive(self, "base_mb", "unfolded_bytes", "compute_w", zero=True)
        need_positive(self, "launch_ms", "image_ms", "message_ms", zero=True)


def load_board(name: str | Path, setting: str = "distribute.board") -> Board:
    """One board: a shipped name, or the path of a TOML file of the same form.

    InputError, opened by `setting`: neither of them, or a description that does not hold.
    """
    known = shipped_boards()
    if name in known:
        return _read(_FOLDER / f"{name}.toml", setting)
    path = Path(name)
    shipped = f"shipped are {', '.join(known)}; any other is the path of a .toml file"
    if path.suffix != ".toml":
        guess = nearest(str(name), known).partition(";")[0]
        need(False, f"unknown board `{name}`{guess}; {shipped}")
    need(path.exists(), f"board `{name}`: there is no such file; {shipped}")
    return _read(path, setting)


def shipped_boards() -> tuple[str, ...]:
    """Names of the boards that come with afpjax."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def _read(path: Path, setting: str) -> Board:
    return from_table(Board, read_toml(path, setting), f"{setting}: {path}")
