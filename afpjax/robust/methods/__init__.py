"""Ways to spread neurons over devices: RobustDiCE, and what it is compared with.

A new one is a file with a function from a `Request` to a `Placement`, and its line in `METHODS`.
"""

from collections.abc import Callable, Mapping

from afpjax.robust.methods.cdc import cdc
from afpjax.robust.methods.lop import lop
from afpjax.robust.methods.random import random
from afpjax.robust.methods.randomk import randomk
from afpjax.robust.methods.replication import replication
from afpjax.robust.methods.request import Request as Request
from afpjax.robust.methods.robustdice import robustdice
from afpjax.robust.methods.topk import topk
from afpjax.robust.placement import Placement

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
