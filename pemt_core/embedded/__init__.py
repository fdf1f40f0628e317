"""A small world with language in it: rows for every task in the schema of the real dataset, and no download."""
