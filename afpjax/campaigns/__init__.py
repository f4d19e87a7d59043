"""Which faults to inject: strata, designs, the walk through them, counts."""
