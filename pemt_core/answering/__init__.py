"""How a trained model answers rows, the same for selection in training, the test, prediction and serving."""
