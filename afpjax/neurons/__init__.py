"""RobustDiCE and its rivals: importance, clusters, placements, failures, resources."""
