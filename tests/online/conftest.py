"""The five layers on three devices that searches are tested on."""

from tests.search.conftest import (
    every_mapping,
    faults,
    images,
    labels,
    platform,
    quantized,
    tables,
)

__all__ = ["every_mapping", "faults", "images", "labels", "platform", "quantized", "tables"]
