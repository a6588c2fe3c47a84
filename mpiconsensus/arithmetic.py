"""Where and in what arithmetic a rank computes: device, precision, layout of images."""

import torch

from mpiconsensus.errors import UserError

DTYPES = {"float64": torch.float64, "float32": torch.float32, "tf32": torch.float32, "bf16": torch.float32}


def memory_format(job, source):
    """Return the torch memory format of images and convolution weights."""
    contiguous = job.training.memory_format == "contiguous" or len(source.shape) != 3
    return torch.contiguous_format if contiguous else torch.channels_last


def pick_device(name, world):
    """Return the torch device of this rank, and make it the current one: GPUs of a node are dealt out over its ranks."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("training.device = cuda, but this torch finds no CUDA device; take auto or cpu.")
    device = torch.device("cuda", world.node_rank % torch.cuda.device_count())
    # Else what pins memory, and MPI, would work on the first GPU whatever the rank.
    torch.cuda.set_device(device)
    return device


def default_generator(device):
    """Return the generator that dropout on `device` draws from; torch.manual_seed seeds every backend, at 0.1 ms a call."""
    if device.type == "cpu":
        return torch.default_generator
    torch.cuda.init()
    return torch.cuda.default_generators[device.index]


def set_precision(precision):
    """Allow or forbid the short-mantissa matrix products that `tf32` means."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
