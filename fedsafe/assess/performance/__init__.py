"""How well the model predicts: losses, accuracy, ranking, calibration, and how evenly over clients."""
