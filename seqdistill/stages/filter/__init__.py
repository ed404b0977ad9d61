"""Stage 2: samples to training rows, each rejected row with its reason."""
