"""The model zoo: plain Flax networks that know nothing of quantisation or faults."""

from .zoo import apply_fn_of, create, load, save

__all__ = ["apply_fn_of", "create", "load", "save"]
