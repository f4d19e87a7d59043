"""RobustDiCE (Guo et al.): how much a network owes to each of its neurons."""
