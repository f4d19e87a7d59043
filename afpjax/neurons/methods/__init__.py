"""Ways to spread neurons over devices: RobustDiCE, and what it is compared with.

A new one is a file with a function from a `Request` to a `Placement`, and its line in `METHODS`.
"""

from collections.abc import Callable, Mapping

from afpjax.neurons.methods.cdc import cdc
from afpjax.neurons.methods.lop import lop
from afpjax.neurons.methods.random import random
from afpjax.neurons.methods.randomk import randomk
from afpjax.neurons.methods.replication import replication
from afpjax.neurons.methods.request import Request as Request
from afpjax.neurons.methods.robustdice import robustdice
from afpjax.neurons.methods.topk import topk
from afpjax.neurons.placement import Placement

Method = Callable[[Request], Placement]

METHODS: Mapping[str, Method] = {
    "robustdice": robustdice,
    "lop": lop,
    "cdc": cdc,
    "replication": replication,
    "random": random,
    "topk": topk,
    "randomk": randomk,
}
