"""The prepared form of a task, and what training and evaluation draw from it. Knows nothing of raw datasets."""
