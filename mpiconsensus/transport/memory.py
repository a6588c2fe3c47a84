"""Memory for rows, in huge pages where the system has them: other processes and the kernel reach these through fewer entries."""

import math
import mmap

import torch

HUGE = 2 << 20  # bytes of a huge page; what is smaller than one cannot have any


def zeros(shape, dtype, device="cpu"):
    """Return zeros as torch.zeros does; on the CPU in huge pages from HUGE bytes on."""
    size = math.prod(shape) * dtype.itemsize
    if torch.device(device).type != "cpu" or size < HUGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(shape, dtype=dtype, device=device)
    try:
        # The kernel puts a huge page where an aligned stretch of the mapping has room for it, at the end too.
        memory = mmap.mmap(-1, -(-size // HUGE) * HUGE + HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
    except OSError:  # a kernel without them, or no memory, of which torch tells
        return torch.zeros(shape, dtype=dtype)
    start = torch.frombuffer(memory, dtype=torch.uint8, count=1).data_ptr()
    return torch.frombuffer(memory, dtype=dtype, count=math.prod(shape), offset=-start % HUGE).view(shape)
