"""Trained targets in use: several on one backbone in memory, rows of several in one batch."""
