"""Experiment files that ship with afpjax."""
