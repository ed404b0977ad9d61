"""Stage 3: training rows to a student."""
