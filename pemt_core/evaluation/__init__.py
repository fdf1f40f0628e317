"""Scores by generation, the same way when models are selected and at the final test."""
