"""Each faulty bit flips by itself."""

from afpjax.faults.kinds import FaultKind, one_bit
from afpjax.network.fixed_point import change


def inject(codes, draws, bits):
    return change(draws.format, codes, draws.mask(bits), "flip")


KIND = FaultKind(inject, single=one_bit)
