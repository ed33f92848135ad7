"""One row of real weights, quantized by hand: every step and every error."""
