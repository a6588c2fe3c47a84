"""What is done to a module ahead of training: its start, its layers that keep running statistics."""

import torch

from mpiconsensus import formula


def start_at(module, text):
    """Give the trained parameters of `module` the values of the formula `text`, in their order; UserError as formula.values."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    sizes = [parameter.numel() for parameter in trained]
    values = torch.from_numpy(formula.values("training.start", text, sum(sizes)))
    with torch.no_grad():
        for parameter, part in zip(trained, values.split(sizes), strict=True):
            parameter.copy_(part.view(parameter.shape))


def norm_layers(module):
    """Return the layers that keep running statistics."""
    return [m for m in module.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
