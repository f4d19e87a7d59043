"""An export run for real: every device a process, which may be killed."""
