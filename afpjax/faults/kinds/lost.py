"""`faults.packet` values after one another are lost together, and read as zeros."""

import numpy as np

from afpjax.faults.kinds import FaultKind, whole_value


def inject(codes, draws, bits):
    return draws.change(codes, draws.lost(), np.uint32(0xFFFFFFFF), "clear")


KIND = FaultKind(inject, "packet", "clear", whole_value, by_bit=False, length="packet")
