"""What jobs measure, typed, as result.json has it and back.

A job's result is a frozen dataclass whose fields are the keys of result.json, in their order. What
does not exist is None and stands nowhere; an `Estimate` becomes two keys, its value and its
interval. What several jobs measure is here too.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from pydantic import PlainValidator, TypeAdapter, ValidationError

from afpjax.inputs.notes import Note
from afpjax.network.layers import Coverage, Layer
from afpjax.statistics.intervals import Estimate

__all__ = [
    "Array",
    "CostResult",
    "CoverageResult",
    "Estimate",
    "FaultsResult",
    "LayerResult",
    "LinkResult",
    "ModelResult",
    "NoteResult",
]
__all__ += ["inline", "named", "plain", "read", "real"]

T = TypeVar("T")

#: Many numbers of a result, read back as an array.
Array: TypeAlias = Annotated[np.ndarray, PlainValidator(np.asarray)]


def named(key: str, **how: Any) -> Any:
    """A field whose key in result.json is no name in Python, or another one."""
    return field(metadata={"key": key}, **how)


def inline(**how: Any) -> Any:
    """A field whose own fields stand beside the others in result.json."""
    return field(metadata={"inline": True}, **how)


def real(value: Any) -> float:
    """A number of NumPy or JAX as Python's; of float32, the shortest decimal that says which."""
    array = np.asarray(value)
    return float(str(array)) if array.dtype in (np.float16, np.float32) else float(array)


def plain(value: object, where: str = "result") -> Any:
    """`value` in JSON's own types: dataclasses as objects, arrays and tuples as lists.

    Single-precision numbers become the shortest decimal that says which they are, 0.9 instead of
    0.8999999761581421. Raises `ValueError` that names the place of a NaN, an infinity or what
    JSON does not have: a number that does not exist is to be left out.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {key: plain(item, f"{where}.{key}") for key, item in _items(value)}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{where}: {key!r} is no name for a key")
        return {key: plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if hasattr(value, "dtype"):
        return plain(_from_array(value), where)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}: leave out a number that does not exist")
    if not isinstance(value, str | bool | int | float):
        raise ValueError(f"{where}: a {type(value).__name__} has no place in result.json")
    return value


def read(kind: type[T], record: Mapping[str, Any]) -> T:
    """The result that result.json holds, the inverse of `plain`. Raises `ValueError`, one line."""
    try:
        return TypeAdapter(kind).validate_python(_nested(kind, record))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {first['msg']}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{error!r}") from error


def _items(result: Any) -> Iterator[tuple[str, Any]]:
    """Keys and values of a dataclass."""
    for each in fields(result):
        value, key = getattr(result, each.name), each.metadata.get("key", each.name)
        if value is None:
            continue
        if isinstance(value, Estimate):
            yield from ((key, value.value), (_interval(key), [value.low, value.high]))
        elif each.metadata.get("inline"):
            yield from value.items() if isinstance(value, Mapping) else _items(value)
        else:
            yield key, value


def _interval(key: str) -> str:
    """The key of an estimate's interval: `sdc_rate` has `sdc_interval`."""
    return f"{key.removesuffix('_rate')}_interval"


def _nested(kind: Any, value: Any) -> Any:
    """A record as the dataclass's constructor wants it, estimates and inlined parts apart."""
    if is_dataclass(kind):
        return _as_fields(kind, value)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        own = [each for each in arguments if each is not type(None)]
        return value if value is None or len(own) > 1 else _nested(own[0], value)
    if origin is not None and isinstance(value, Mapping) and len(arguments) == 2:
        return {key: _nested(arguments[1], item) for key, item in value.items()}
    if origin is not None and isinstance(value, list) and arguments:
        return [_nested(arguments[0], item) for item in value]
    return value


def _as_fields(kind: Any, record: Mapping[str, Any]) -> dict[str, Any]:
    """A dataclass's fields by name, from the keys of result.json."""
    hints = get_type_hints(kind, include_extras=True)
    made: dict[str, Any] = {}
    for each in fields(kind):
        key, hint = each.metadata.get("key", each.name), hints[each.name]
        if each.metadata.get("inline"):
            rest = {k: item for k, item in record.items() if k not in hints}
            made[each.name] = _nested(hint, record) if is_dataclass(hint) else rest
        elif Estimate in (hint, *get_args(hint)):
            if key in record:
                made[each.name] = Estimate(record[key], *record[_interval(key)])
        elif key in record:
            made[each.name] = _nested(hint, record[key])
        elif type(None) in get_args(hint):
            made[each.name] = None
    return made


def _from_array(array: Any) -> object:
    values = np.asarray(array)
    if values.dtype in (np.float16, np.float32):
        return values.astype(str).astype(np.float64).tolist()
    # NumPy does not know what JAX's small formats are; as numbers they fit float32.
    return (values.astype(np.float32) if values.dtype.kind == "V" else values).tolist()


@dataclass(frozen=True)
class LayerResult:
    """One layer: sizes for one image, weights and biases counted apart."""

    name: str
    kind: str
    macs: int
    weights: int
    biases: int
    neurons: int
    inputs: int
    outputs: int
    stored_in: str | None = None  # the first layer that reads the same stored kernel

    @classmethod
    def of(cls, layer: Layer) -> "LayerResult":
        return cls(
            layer.name, layer.kind, layer.macs, layer.weights, layer.biases, layer.neurons,
            layer.inputs, layer.outputs, layer.shares or None,
        )  # fmt: skip


@dataclass(frozen=True)
class CoverageResult:
    """What of a network its layers are: shares, and what is outside them by kind."""

    macs: float
    parameters: float
    macs_outside: Mapping[str, int]
    parameters_outside: Mapping[str, int]

    @classmethod
    def of(cls, coverage: Coverage) -> "CoverageResult":
        return cls(
            coverage.macs_share, coverage.parameters_share,
            dict(coverage.other_macs), dict(coverage.other_parameters),
        )  # fmt: skip


@dataclass(frozen=True)
class ModelResult:
    """The network: its name, its layers in the order they run, and what of it they are."""

    name: str
    layers: Sequence[LayerResult]
    coverage: CoverageResult | None = None


@dataclass(frozen=True)
class NoteResult:
    """What has to be known before the answer is read; `facts` are the figures behind the text."""

    kind: str
    text: str
    facts: Mapping[str, Any] = inline(default_factory=dict)

    @classmethod
    def of(cls, note: Note) -> "NoteResult":
        return cls(note.kind, note.text, note.facts)


@dataclass(frozen=True)
class CostResult:
    """What one layer costs on one device, links not included."""

    layer: str
    device: str
    latency_ms: float
    energy_mj: float
    bytes: int


@dataclass(frozen=True)
class DataResult:
    """How many images the search saw, and how many the answer was measured on."""

    name: str
    search_images: int
    held_out_images: int


@dataclass(frozen=True)
class DataName:
    """Which images."""

    name: str


@dataclass(frozen=True)
class HeldOutImages:
    """The images that everything was measured on."""

    name: str
    images: int


@dataclass(frozen=True)
class NumberFormat:
    """What the network's numbers are."""

    kind: str
    bits: int


@dataclass(frozen=True)
class Speed:
    """Passes of an image a second, under faults (or lost devices) and without."""

    inferences_per_second: float
    clean_inferences_per_second: float
    passes: int


@dataclass(frozen=True)
class LinkResult:
    """What happens to values on the way from one device to another, and how often."""

    kind: str
    rate: float


@dataclass(frozen=True)
class FaultsResult:
    """Which faults the figures were measured under; a rate for each device."""

    strategy: str
    bits: Sequence[int]
    layers: Sequence[str]
    weight_rate: Sequence[float]
    activation_rate: Sequence[float]
    link: LinkResult | None = None
