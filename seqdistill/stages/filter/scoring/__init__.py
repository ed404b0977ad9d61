"""How good a row is, one file a way to score, and which of the scored rows stay."""
