"""A package that functions take along."""
