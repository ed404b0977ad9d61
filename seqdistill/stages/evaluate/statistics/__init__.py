"""The statistics of eval: intervals, paired tests and the decision at a margin. Knows numbers, not what they measure."""
