"""Many faulty networks at once; the only room that knows of batches, calls and devices of JAX."""
