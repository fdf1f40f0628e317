"""Prepared tasks, and the samples and batches that training and evaluation draw from them."""
