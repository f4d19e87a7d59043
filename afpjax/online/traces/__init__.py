"""Environments that come with afpjax, a TOML file each."""
