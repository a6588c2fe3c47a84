"""The algorithms as a few lines of matrices in float64: all vertices in one array, no transport, no torch."""
