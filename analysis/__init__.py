"""Scripts that turn logs of runs into tables and figures; each runs by itself: `python analysis/curves.py RUN...`."""
