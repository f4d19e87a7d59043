"""Fault-aware placement of neural networks on edge accelerators."""

__version__ = "0.1.0"
