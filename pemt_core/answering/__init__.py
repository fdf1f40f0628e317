"""How a trained model answers rows: the same code for validation, test, prediction and serving."""
