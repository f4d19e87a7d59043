"""What a network may run on: devices, the link between them, and both together.

Shipped ones are the files of `devices/` and `links/`, beside this file; a path to a TOML file of
the same form does as well as a shipped name.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import model_validator

from afpjax.hardware.importers import read_layer_table
from afpjax.inputs.checks import instance, names
from afpjax.inputs.errors import nearest
from afpjax.inputs.files import read_toml
from afpjax.inputs.toml_tables import (
    Flag,
    Name,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    PositiveOrInfinite,
    Rate,
    from_table,
    need,
    table,
)

_HERE = Path(__file__).parent
T = TypeVar("T")


@table
class PEArray:
    """The grid of multipliers and how layers are laid on it (`lanes.py` has the rules).

    row-stationary: `rows` x `columns` processing elements (PEs). weight-stationary: `rows` PEs of
    `columns` lanes, in vectors of `vector` that add to one sum. fixed: all `rows` x `columns` lanes
    work on every layer.
    """

    dataflow: Literal["row-stationary", "weight-stationary", "fixed"]
    rows: PositiveInt
    columns: PositiveInt
    vector: PositiveInt = 1

    @model_validator(mode="after")
    def _vectors_fill_a_pe(self) -> "PEArray":
        if self.columns % self.vector:
            raise ValueError(
                f"`vector` is {self.vector}: give a divisor of `columns`, {self.columns}"
            )
        return self


@table
class Memories:
    """Sizes on the chip: one shared buffer, and the small memories inside every PE.

    `input_share` and `partial_sum_share`: multiply-accumulates that one read of that local memory
    feeds at most (1 where each has its own read); a layer may have fewer for it.
    """

    buffer_bytes: PositiveInt
    input_words: PositiveInt
    weight_words: PositiveInt
    partial_sum_words: PositiveInt
    input_share: PositiveInt = 1
    partial_sum_share: PositiveInt = 1


@table
class Energies:
    """Picojoules of one multiply-accumulate and of one access to one word, by level."""

    mac: NonNegative
    input: NonNegative
    weight: NonNegative
    partial_sum: NonNegative
    buffer: NonNegative
    dram: NonNegative


@table
class Device:
    """One accelerator: its speed, its memories, what they cost, and how often its bits flip.

    Fault rates are probabilities per faulty bit. `dram_gb_s` is 1e9 bytes per second and may be
    inf; `layer_table` is a CNNParted table that replaces the model's figures ("" for none).
    """

    name: Name
    description: str
    clock_mhz: Positive
    word_bits: PositiveInt
    memory_bytes: PositiveInt
    dram_gb_s: PositiveOrInfinite
    weight_fault_rate: Rate
    activation_fault_rate: Rate
    array: PEArray
    memory: Memories
    energy_pj: Energies
    layer_table: str = ""


@table
class Link:
    """The path between any two devices.

    A transfer of n bytes sends them and `packet_overhead_bytes` for every started packet of
    `packet_payload_bytes` (0: no packets). Energy is `power_mw` x time plus `energy_pj_per_bit` x
    bits sent: Ethernet is known by its power, die-to-die links by their energy per bit.
    """

    name: str
    description: str
    bandwidth_gbit_s: PositiveOrInfinite
    latency_us: NonNegative
    packet_payload_bytes: NonNegativeInt
    packet_overhead_bytes: NonNegativeInt
    power_mw: NonNegative
    energy_pj_per_bit: NonNegative
    shared_medium: Flag = False  # senders take turns, as on the air
    bit_error_rate: Rate = 0.0  # probability that a bit arrives flipped
    packet_loss_rate: Rate = 0.0  # probability that a packet does not arrive

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


@dataclasses.dataclass(frozen=True)
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
    device, path = read_shipped_or_own(Device, name, "devices", setting)
    if not device.layer_table:
        return device
    beside = path.parent / device.layer_table
    read_layer_table(beside)  # refused now, and not once a network is trained
    return dataclasses.replace(device, layer_table=str(beside))


def load_link(name: str, setting: str = "platform.link") -> Link:
    """One link, a shipped name or the path of a TOML file.

    `setting` opens the `InputError`s of a user's file.
    """
    return read_shipped_or_own(Link, name, "links", setting)[0]


def shipped_devices() -> tuple[str, ...]:
    """Names of the devices that come with afpjax."""
    return shipped_names("devices")


def shipped_links() -> tuple[str, ...]:
    """Names of the links that come with afpjax."""
    return shipped_names("links")


def shipped_names(folder: str) -> tuple[str, ...]:
    """What comes with afpjax in a folder beside this file, by name."""
    return tuple(sorted(path.stem for path in (_HERE / folder).glob("*.toml")))


def read_shipped_or_own(kind: type[T], name: str, folder: str, setting: str) -> tuple[T, Path]:
    """The file of a shipped name, or the one at a path, and where it lies.

    InputError, opened by `setting`: neither of them, or a file that does not hold.
    """
    known, what = shipped_names(folder), folder.removesuffix("s")
    path = Path(name)
    if name in known:
        path = _HERE / folder / f"{name}.toml"
    else:
        shipped = f"shipped are {', '.join(known)}; any other is the path of a .toml file"
        need(path.suffix == ".toml", f"unknown {what} `{name}`{nearest(name, known)}; {shipped}")
        need(path.exists(), f"{what} `{name}`: there is no such file; {shipped}")
    return from_table(kind, read_toml(path, setting), f"{setting}: {path}"), path


def _free_name(name: str, taken: set[str]) -> str:
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free
