"""What may be wrong with a row, one file a check. A check knows texts and hashes; which rows go is `filter.rules`' decision."""
