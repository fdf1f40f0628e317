"""Values from files against typed groups: strict, and with problems as a user reads them."""
