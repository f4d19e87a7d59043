"""Job `partition`: AFarePart's offline phase, beside its baselines."""
