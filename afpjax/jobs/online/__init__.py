"""Job `online`: AFarePart's online phase."""
