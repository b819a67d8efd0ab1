"""How the model stands up to worse inputs than those that it was judged on: corruption, noise and shift."""
