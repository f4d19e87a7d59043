"""What a network may run on: devices, the link between them, and both together.

Shipped devices are the files of `devices/`, shipped links the tables of `links.toml`, both beside
this file; a path to a TOML file of the same form does as well as a shipped name.
"""

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from afpjax.hardware.layer_rows import read_layer_table
from afpjax.hardware.schema import (
    from_table,
    nearest,
    need,
    need_fraction,
    need_positive,
)
from afpjax.inputs.checks import instance, names
from afpjax.inputs.errors import InputError, shortened
from afpjax.inputs.files import read_toml

_HERE = Path(__file__).parent
DATAFLOWS = ("row-stationary", "weight-stationary", "fixed")


@dataclass(frozen=True)
class PEArray:
    """The grid of multipliers and how layers are laid on it (`lanes.py` has the rules).

    row-stationary: `rows` x `columns` processing elements (PEs). weight-stationary: `rows` PEs of
    `columns` lanes, in vectors of `vector` that add to one sum. fixed: all `rows` x `columns` lanes
    work on every layer.
    """

    dataflow: str
    rows: int
    columns: int
    vector: int = 1

    def __post_init__(self) -> None:
        if self.dataflow not in DATAFLOWS:
            raise InputError(
                f"unknown dataflow `{shortened(self.dataflow)}`{nearest(self.dataflow, DATAFLOWS)}"
            )
        need_positive(self, "rows", "columns", "vector")
        need(
            self.columns % self.vector == 0,
            f"`vector` is {self.vector}: give a divisor of `columns`, {self.columns}",
        )


@dataclass(frozen=True)
class Memories:
    """Sizes on the chip: one shared buffer, and the small memories inside every PE.

    `input_share` and `partial_sum_share`: multiply-accumulates that one read of that local memory
    feeds at most (1 where each has its own read); a layer may have fewer for it.
    """

    buffer_bytes: int
    input_words: int
    weight_words: int
    partial_sum_words: int
    input_share: int = 1
    partial_sum_share: int = 1

    def __post_init__(self) -> None:
        need_positive(self, *(field.name for field in dataclasses.fields(self)))


@dataclass(frozen=True)
class Energies:
    """Picojoules of one multiply-accumulate and of one access to one word, by level."""

    mac: float
    input: float
    weight: float
    partial_sum: float
    buffer: float
    dram: float

    def __post_init__(self) -> None:
        need_positive(self, *(field.name for field in dataclasses.fields(self)), zero=True)


@dataclass(frozen=True)
class Device:
    """One accelerator: its speed, its memories, what they cost, and how often its bits flip.

    Fault rates are probabilities per faulty bit. `dram_gb_s` is 1e9 bytes per second and may be
    inf; `layer_table` is a CNNParted table that replaces the model's figures ("" for none).
    """

    name: str
    description: str
    clock_mhz: float
    word_bits: int
    memory_bytes: int
    dram_gb_s: float
    weight_fault_rate: float
    activation_fault_rate: float
    array: PEArray
    memory: Memories
    energy_pj: Energies
    layer_table: str = ""

    def __post_init__(self) -> None:
        need(bool(self.name), "`name` is empty: give the device one")
        need_positive(self, "clock_mhz", "word_bits", "memory_bytes")
        need_positive(self, "dram_gb_s", infinite=True)
        need_fraction(self, "weight_fault_rate", "activation_fault_rate")


@dataclass(frozen=True)
class Link:
    """The path between any two devices.

    A transfer of n bytes sends them and `packet_overhead_bytes` for every started packet of
    `packet_payload_bytes` (0: no packets). Energy is `power_mw` x time plus `energy_pj_per_bit` x
    bits sent: Ethernet is known by its power, die-to-die links by their energy per bit.
    """

    name: str
    description: str
    bandwidth_gbit_s: float
    latency_us: float
    packet_payload_bytes: int
    packet_overhead_bytes: int
    power_mw: float
    energy_pj_per_bit: float
    shared_medium: bool = False  # senders take turns, as on the air
    bit_error_rate: float = 0.0  # probability that a bit arrives flipped
    packet_loss_rate: float = 0.0  # probability that a packet does not arrive

    def __post_init__(self) -> None:
        need_positive(self, "bandwidth_gbit_s", infinite=True)
        rest = ("latency_us", "packet_payload_bytes", "packet_overhead_bytes")
        need_positive(self, *rest, "power_mw", "energy_pj_per_bit", zero=True)
        need_fraction(self, "bit_error_rate", "packet_loss_rate")

    def resending(self, times: float) -> "Link":
        """The link where everything is sent so many times, on average, until it has arrived."""
        return dataclasses.replace(
            self,
            bandwidth_gbit_s=self.bandwidth_gbit_s / times,
            latency_us=self.latency_us * times,
            energy_pj_per_bit=self.energy_pj_per_bit * times,
        )

    def sent_bytes(self, payload_bytes: int) -> int:
        """Payload and packet overhead."""
        if self.packet_payload_bytes == 0:
            return payload_bytes
        packets = -(-payload_bytes // self.packet_payload_bytes)
        return payload_bytes + packets * self.packet_overhead_bytes

    def transfer_ms(self, payload_bytes: int) -> float:
        """Milliseconds until the last byte has arrived."""
        bits = 8 * self.sent_bytes(payload_bytes)
        return bits / (self.bandwidth_gbit_s * 1e6) + self.latency_us * 1e-3

    def transfer_mj(self, payload_bytes: int) -> float:
        """Millijoules of one transfer."""
        bits = 8 * self.sent_bytes(payload_bytes)
        while_sending_ms = bits / (self.bandwidth_gbit_s * 1e6)
        return self.power_mw * while_sending_ms * 1e-3 + self.energy_pj_per_bit * bits * 1e-9


@dataclass(frozen=True)
class Platform:
    """Devices with distinct names, and the link between any two of them."""

    devices: tuple[Device, ...]
    link: Link

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(device.name for device in self.devices)

    @property
    def weight_rates(self) -> tuple[float, ...]:
        return tuple(device.weight_fault_rate for device in self.devices)

    @property
    def activation_rates(self) -> tuple[float, ...]:
        return tuple(device.activation_fault_rate for device in self.devices)


def load_platform(devices: Sequence[str], link: str) -> Platform:
    """A platform of devices and a link, each a shipped name or a path to a TOML file.

    A name that occurs again becomes NAME-2, NAME-3, … InputError: no device, a name that is
    neither shipped nor a file, or a description that does not hold.
    """
    devices = names("platform.devices", devices, "device names")
    instance("platform.link", link, str, "the name of a link, or the path to its TOML")
    need(len(devices) > 0, "platform.devices is empty: name at least one device")
    loaded: list[Device] = []
    for device in (load_device(name) for name in devices):
        taken = {other.name for other in loaded}
        loaded.append(dataclasses.replace(device, name=_free_name(device.name, taken)))
    return Platform(tuple(loaded), load_link(link))


def load_device(name: str, setting: str = "platform.devices") -> Device:
    """One device; a relative `layer_table` is looked for beside the device's own file, and read.

    `setting` opens the `InputError`s of a user's file.
    """
    known = shipped_devices()
    path = (
        _HERE / "devices" / f"{name}.toml" if name in known else _user_file(name, "device", known)
    )
    device = from_table(Device, read_toml(path, setting), f"{setting}: {path}")
    if not device.layer_table:
        return device
    table = path.parent / device.layer_table
    read_layer_table(table)  # refused now, and not once a network is trained
    return dataclasses.replace(device, layer_table=str(table))


def load_link(name: str, setting: str = "platform.link") -> Link:
    """One link; the table's name is the link's, a user's file is one table with a `name`.

    `setting` opens the `InputError`s of a user's file.
    """
    links = read_toml(_HERE / "links.toml", "")
    if name in links:
        return from_table(Link, {"name": name, **links[name]}, f"link `{name}`")
    path = _user_file(name, "link", tuple(links))
    return from_table(Link, read_toml(path, setting), f"{setting}: {path}")


def shipped_devices() -> tuple[str, ...]:
    """Names of the devices that come with afpjax."""
    return tuple(sorted(path.stem for path in (_HERE / "devices").glob("*.toml")))


def shipped_links() -> tuple[str, ...]:
    """Names of the links that come with afpjax."""
    return tuple(read_toml(_HERE / "links.toml", ""))


def _user_file(name: str, kind: str, known: tuple[str, ...]) -> Path:
    path = Path(name)
    shipped = f"shipped are {', '.join(known)}; any other is the path of a .toml file"
    if path.suffix != ".toml":
        close = difflib.get_close_matches(name, known, n=1)
        guess = f", did you mean `{close[0]}`?" if close else ";"
        raise InputError(f"unknown {kind} `{name}`{guess} {shipped}")
    need(path.exists(), f"{kind} `{name}`: there is no such file; {shipped}")
    return path


def _free_name(name: str, taken: set[str]) -> str:
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free
