"""The report of a comparison of methods: who is best, by how much, how sure, and at what cost."""
