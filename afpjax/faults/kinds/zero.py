"""A value becomes zero."""

import numpy as np

from afpjax.faults.kinds import FaultKind, whole_value


def inject(codes, draws, bits):
    return draws.change(codes, draws.hits()[0], np.uint32(0xFFFFFFFF), "clear")


KIND = FaultKind(inject, "value", "clear", whole_value, by_bit=False)
