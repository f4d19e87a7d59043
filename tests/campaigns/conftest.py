"""The small network that faults are tested on."""

from ..faults.conftest import images as images
from ..faults.conftest import labels as labels
from ..faults.conftest import network_of as network_of
from ..faults.conftest import quantized as quantized
