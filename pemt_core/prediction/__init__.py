"""Predict with trained targets: several share one backbone in memory, and one call may mix their rows."""
