"""Phase two, over all rows at once: duplicates, contamination, weights."""
