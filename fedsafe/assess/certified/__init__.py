"""What is proven of a model, for every input near those that it was judged on."""
