"""A small generated world: rows for every task, in the schema of the real dataset and without a download."""
