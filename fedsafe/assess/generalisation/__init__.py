"""How the model does on clients it has not seen, and what training on after it gives its own."""
