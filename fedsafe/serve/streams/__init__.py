"""What follows decisions over time."""
