"""Artifacts on disk: written whole or not at all, described in JSON, never pickled."""
