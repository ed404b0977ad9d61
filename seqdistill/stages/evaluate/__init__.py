"""Stage 4: base, student, teacher and ceiling side by side."""
