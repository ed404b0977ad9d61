"""Stage 1: prompts to samples."""
