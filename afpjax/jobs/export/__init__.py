"""Job `export`: one deployable model for each device."""
