"""Models that run on devices: one file for each, and the service that runs them."""
