"""Job `distribute`: RobustDiCE beside its rivals, when devices are lost."""
