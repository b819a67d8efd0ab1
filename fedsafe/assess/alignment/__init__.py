"""What a model of preferences agrees with people on, whom it serves, and what it learned besides."""
