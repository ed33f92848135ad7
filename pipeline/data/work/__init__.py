"""Phase one, on every core: filter, encode and fingerprint rows, chunk by chunk, into parts."""
