"""The online phase: environments, change detection, switching, policies."""
