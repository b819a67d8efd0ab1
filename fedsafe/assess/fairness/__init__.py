"""Whether the model serves groups alike."""
