"""What a layer costs where: platforms, the cost model, and imports of other tools' figures."""

from afpjax.hardware.board import Board, load_board, shipped_boards
from afpjax.hardware.cost import cost_tables, layer_cost
from afpjax.hardware.importers import LayerRow, read_layer_table, replace_column
from afpjax.hardware.lanes import active_lanes
from afpjax.hardware.memory_traffic import Sizes
from afpjax.hardware.platform import (
    Device,
    Link,
    Platform,
    load_device,
    load_link,
    load_platform,
    shipped_devices,
    shipped_links,
)
from afpjax.hardware.tables import CostTables, MappingCost, check_capacity, mapping_cost

__all__ = [
    "Board",
    "CostTables",
    "Device",
    "LayerRow",
    "Link",
    "MappingCost",
    "Platform",
    "Sizes",
    "active_lanes",
    "check_capacity",
    "cost_tables",
    "layer_cost",
    "load_board",
    "load_device",
    "load_link",
    "load_platform",
    "mapping_cost",
    "read_layer_table",
    "replace_column",
    "shipped_boards",
    "shipped_devices",
    "shipped_links",
]
