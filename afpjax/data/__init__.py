"""Labelled images: arrays, folders, splits."""
