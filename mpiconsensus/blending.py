"""Sums of rows by compiled code (blend.c): one pass, to the bits of torch.lerp; where it was not built, torch sums."""

import ctypes
import functools
import importlib.util

import torch

NAMES = {torch.float32: "blend_float", torch.float64: "blend_double"}
CHECKED = 1024  # elements; shares of both kinds, and of both signs
SHARES = (1.0, 0.3, -0.2, 0.7, -0.8, 1.0, 0.5)


def prepare(sums, stream=False):
    """Return a function that writes the sums of `mixing.Sums` each time it is called, or None where torch has to.

    The addresses are taken once: rows that are freed or moved before a call are the caller's mistake.
    stream: past the caches, for rows that other processes have read and will read.
    """
    if not sums:
        return None
    out = sums[0][0]
    kernel, step = kernels()
    if out[0].dtype not in kernel or out[0].device.type != "cpu" or torch.get_num_threads() > 1:
        return None
    n = (len(out) - 1) * out[0].numel() + out[-1].numel()
    if n * out[0].itemsize % step:
        return None  # torch's vector loops have a tail there
    outs = [out[0].data_ptr() for out, _ in sums]
    rows = [row[0].data_ptr() for _, terms in sums for row, _ in terms]
    shares = [share for _, terms in sums for _, share in terms]
    stream = stream and not any(address % 64 for address in outs)
    return functools.partial(
        kernel[out[0].dtype], len(outs), _words(len(outs))(*outs), _ints(len(outs))(*[len(terms) for _, terms in sums]),
        _words(len(rows))(*rows), _reals(len(rows))(*shares), n, stream,
    )  # fmt: skip


@functools.cache
def kernels():
    """Return ({dtype: function}, bytes that rows must be a multiple of): of what was built and sums as torch does here."""
    found = importlib.util.find_spec("mpiconsensus._blend")
    return load(found.origin) if found else ({}, 1)


def load(path):
    """Return what `kernels` does, of the library at `path`."""
    try:
        library = ctypes.CDLL(path)
    except OSError:  # built for another machine
        return {}, 1
    step = library.blend_step()
    if not step:
        return {}, 1
    kernel = {}
    for dtype, name in NAMES.items():
        function = getattr(library, name)
        function.argtypes = (ctypes.c_int, *[ctypes.c_void_p] * 4, ctypes.c_size_t, ctypes.c_int)
        function.restype = None
        if _agrees(function, dtype):
            kernel[dtype] = function
    return kernel, step


def _agrees(function, dtype):
    """Return whether the bits are torch's: it has no fused multiply-add on old processors, or where it is told to use none."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(len(SHARES), CHECKED, dtype=dtype, generator=generator)
    out, expected = torch.empty_like(rows[0]), rows[0]
    count = len(SHARES)
    function(1, _words(1)(out.data_ptr()), _ints(1)(count), _words(count)(*[row.data_ptr() for row in rows]), _reals(count)(*SHARES), CHECKED, 0)
    for row, share in zip(rows[1:], SHARES[1:], strict=True):
        expected = torch.lerp(expected, row, share)
    return torch.equal(out, expected)


@functools.cache
def _words(count):
    return ctypes.c_void_p * count


@functools.cache
def _ints(count):
    return ctypes.c_int * count


@functools.cache
def _reals(count):
    return ctypes.c_double * count
