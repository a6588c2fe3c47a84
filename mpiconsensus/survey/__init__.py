"""What a graph and its weights promise, before a run: figures, spectra, consensus alone, and their pictures."""
