"""What comes from outside: files, checks of what is given, errors of one line, and notes."""
