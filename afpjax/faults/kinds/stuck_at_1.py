"""Each faulty bit sticks at 1 by itself."""

from afpjax.faults.kinds import FaultKind, one_bit
from afpjax.network.fixed_point import change


def inject(codes, draws, bits):
    return change(draws.format, codes, draws.mask(bits), "set")


KIND = FaultKind(inject, how="set", single=one_bit)
