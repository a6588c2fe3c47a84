"""What setup.cfg cannot say: the sums of a round as compiled code, left out where there is no C compiler."""

from setuptools import Extension, setup

setup(ext_modules=[Extension("mpiconsensus._blend", ["mpiconsensus/blend.c"], extra_compile_args=["-O3"], optional=True)])
