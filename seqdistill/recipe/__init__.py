"""The recipe: its tables, how it is read, what a run remembers of it."""
