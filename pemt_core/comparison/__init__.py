"""Experiments that compare methods: their files, what they share, running them, and what is left to do."""
