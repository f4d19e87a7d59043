"""What afpjax costs beside its rivals: `python -m benchmarks [NAME …]`; not part of the wheel."""
