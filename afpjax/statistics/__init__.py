"""Intervals, sampling and stopping rules; knows nothing of networks."""
