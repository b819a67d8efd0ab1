"""Why the model says what it says: attributions, how faithful they are, and rules that imitate it."""
