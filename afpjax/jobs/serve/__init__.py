"""Job `serve`: an export run for real."""
