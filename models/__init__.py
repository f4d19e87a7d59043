"""The model zoo: plain Flax networks that know nothing of quantisation or faults."""
