"""The command line: words, run folders, what is kept for going on, progress, interrupts."""
