"""Search for mappings: multi-objective optimisation and what AFarePart makes of it."""
