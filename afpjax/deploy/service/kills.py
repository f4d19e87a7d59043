"""Which devices are killed, and when: as asked, or at instants drawn from the seed."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from afpjax.inputs.errors import InputError


class Kill(NamedTuple):
    """A device, and the number of images asked for at which it dies."""

    at: int
    device: int


def planned_kills(
    kill: Sequence[str], kills: int, devices: Sequence[str], requests: int, seed: int
) -> tuple[Kill, ...]:
    """The kills asked for as DEVICE@N, and `kills` more of other devices at random instants.

    DEVICE is a name or a number from 0. Random instants are numbers of images asked for, from 1 to
    `requests`, a function of the seed. Raises `InputError` for a device that is not there or
    killed twice, an instant that is no number or never comes, and more kills than devices.
    """
    asked = [_read(word, devices, requests) for word in kill]
    doomed = [planned.device for planned in asked]
    for word, device in zip(kill, doomed, strict=True):
        if doomed.count(device) > 1:
            raise InputError(f"serve.kill: {word}: {devices[device]} is killed twice; once will do")
    left = [device for device in range(len(devices)) if device not in doomed]
    if kills > len(left):
        raise InputError(
            f"serve.kills: {kills} random kills, but {len(left)} of {len(devices)} devices are "
            f"left for them; give {len(left)} or fewer"
        )
    rng = np.random.default_rng([seed, 0x5E17E])
    chosen = rng.permutation(left)[:kills].tolist()
    instants = rng.integers(1, requests + 1, kills).tolist()
    drawn = [Kill(at, device) for at, device in zip(instants, chosen, strict=True)]
    return tuple(sorted([*asked, *drawn]))


def _read(word: str, devices: Sequence[str], requests: int) -> Kill:
    match = re.fullmatch(r"(.+)@(\d+)", word)
    if not match:
        raise InputError(f"serve.kill: {word!r} is not DEVICE@N, as in {devices[0]}@10")
    name, at = match[1], int(match[2])
    if at > requests:
        raise InputError(
            f"serve.kill: {word}: only {requests} images are asked for; give {requests} or less, "
            "or raise serve.requests"
        )
    if name in devices:
        return Kill(at, devices.index(name))
    if name.isdecimal() and int(name) < len(devices):
        return Kill(at, int(name))
    raise InputError(
        f"serve.kill: {word}: no device {name}; the devices are {', '.join(devices)}, "
        f"or 0 to {len(devices) - 1}"
    )
