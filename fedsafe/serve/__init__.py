"""A released model that guards itself: what looks at each prediction, and the service around it."""
