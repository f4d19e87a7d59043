"""What an experiment file may say, and what is made of it."""
