"""The embedded data sets, digits.h5 and mushrooms.h5; made by data_prep/embedded.py, read by data/source.py."""
