"""What was claimed of the model's privacy, and what an attacker finds."""
