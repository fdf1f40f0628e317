"""Strict validation of values from files against typed groups, with messages for users."""
