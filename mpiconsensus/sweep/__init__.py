"""Sweeps: many runs from one file, with a directory each; here, or as one job array of Slurm."""
