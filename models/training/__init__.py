"""How networks of the zoo are trained: from scratch, and on under faults."""
