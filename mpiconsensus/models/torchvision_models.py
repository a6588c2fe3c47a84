"""Classification models of torchvision, untrained, by their torchvision names.

They are built for 224 pixels and divide an image's sides by 32. For images of at most 64 pixels the first two
halvings go where that is sensible, so that 32 pixels end as a map of 4x4, not of one pixel:

| family                            | changed for images of at most 64 pixels                              |
|-----------------------------------|----------------------------------------------------------------------|
| resnet, resnext, wide_resnet      | first convolution 3x3 of stride 1, no max pooling after it           |
| densenet, googlenet, shufflenet   | the same                                                             |
| inception_v3                      | the same (it divides by 8, not exactly: its convolutions trim edges) |
| mobilenet, mnasnet, efficientnet  | first convolution of stride 1, first strided block of stride 1       |
| regnet                            | the same                                                             |
| convnext, alexnet                 | first convolution 3x3 of stride 1 in place of 4x4 or 11x11 of 4      |
| squeezenet                        | first convolution 3x3 of stride 1 and padding 1                      |
| vgg, swin                         | nothing                                                              |
| vit                               | nothing; takes square images whose side its patch size divides       |
| maxvit                            | not for them: takes images whose sides are multiples of 224          |

Images of other than 3 channels get a first convolution for their channels. A first convolution that is replaced
starts from N(0, 2 / (inputs * kernel)) (He et al. 2015) and its bias from 0; everything else from torchvision's own
rule. googlenet and inception_v3 come without their auxiliary classifiers.
"""

import importlib
import sys

import torch
from torch import nn

from mpiconsensus.errors import UserError

SMALL_IMAGE = 64

# Family -> its layers that halve the image first, in the order in which an image meets them; the first is the first
# convolution. A family is the start of a name, and the first that fits counts.
FIRST_HALVINGS = {
    "resnet": ("conv1", "maxpool"),
    "resnext": ("conv1", "maxpool"),
    "wide_resnet": ("conv1", "maxpool"),
    "densenet": ("features.conv0", "features.pool0"),
    "googlenet": ("conv1.conv", "maxpool1"),
    "shufflenet": ("conv1.0", "maxpool"),
    "inception": ("Conv2d_1a_3x3.conv", "maxpool1"),
    "mobilenet_v2": ("features.0.0", "features.2.conv.1.0"),
    "mobilenet_v3_large": ("features.0.0", "features.2.block.1.0"),
    "mobilenet_v3_small": ("features.0.0", "features.1.block.0.0"),
    "mnasnet": ("layers.0", "layers.8.0.layers.3"),
    "efficientnet_v2": ("features.0.0", "features.2.0.block.0.0"),
    "efficientnet": ("features.0.0", "features.2.0.block.1.0"),
    "regnet": ("stem.0", "trunk_output.block1.block1-0.proj.0", "trunk_output.block1.block1-0.f.b.0"),
    "convnext": ("features.0.0",),
    "alexnet": ("features.0",),
    "squeezenet": ("features.0",),
}


def names():
    """Return the names of torchvision's classification models; UserError where torchvision is not installed."""
    models = _models()
    return models.list_models(module=models)


def build(name, shape, classes):
    """Return the untrained model `name` for images of shape (C, H, W).

    Raises UserError where the model cannot be built for such images; whether it can process them only a forward
    pass tells (see `mpiconsensus.models.build`).
    """
    channels, height, width = shape
    options = {}
    if name.startswith(("googlenet", "inception")):
        # Without init_weights they warn that the default will change.
        options = {"aux_logits": False, "init_weights": True}
    elif name.startswith("vit"):
        options = {"image_size": height}
    elif name.startswith("maxvit"):
        options = {"input_size": (height, width)}
    try:
        module = _models().get_model(name, weights=None, num_classes=classes, **options)
    except (AssertionError, ValueError) as error:
        raise UserError(unfit(name, shape, error)) from None
    halvings = next((layers for family, layers in FIRST_HALVINGS.items() if name.startswith(family)), ())
    if max(height, width) <= SMALL_IMAGE:
        for layer in halvings:
            _keep_size(module, layer, first=layer == halvings[0])
    _take_channels(module, channels)
    return module


def unfit(name, shape, error):
    """Return the line that says that `name` does not take images of `shape`, with the reason in `error`."""
    size = "x".join(map(str, shape))
    reason = " ".join(str(error).split()).rstrip(".!")
    return (
        f"model.name = {name!r} cannot take images of {size}: {reason}. "
        "Choose a model for small images (resnet20, resnet18, mobilenet_v3_small, ...) or mlp."
    )


def _keep_size(module, layer, first):
    """Make one layer that shrinks the image keep its size."""
    old = module.get_submodule(layer)
    if not isinstance(old, nn.Conv2d):
        module.set_submodule(layer, nn.Identity())
    elif first:
        module.set_submodule(layer, _convolution(old, old.in_channels, kernel_size=3, stride=1, padding=1))
    else:
        old.stride = (1, 1)


def _take_channels(module, channels):
    """Make the first convolution of `module` take images of `channels` channels."""
    layer, old = next((n, m) for n, m in module.named_modules() if isinstance(m, nn.Conv2d))
    if old.in_channels != channels:
        new = _convolution(old, channels, kernel_size=old.kernel_size, stride=old.stride, padding=old.padding)
        module.set_submodule(layer, new)


def _convolution(old, channels, **geometry):
    """Return a first convolution with the outputs of `old`."""
    new = nn.Conv2d(channels, old.out_channels, bias=old.bias is not None, **geometry)
    nn.init.kaiming_normal_(new.weight, nonlinearity="relu")
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    return new


def _models():
    """Return the module torchvision.models, imported on first use: it takes seconds and 80 MB."""
    try:
        return importlib.import_module("torchvision.models")
    except ImportError as error:
        raise UserError(
            f"torchvision's models cannot be imported ({error}); `pip install torchvision`, "
            "or choose a built-in model of `mpiconsensus models`."
        ) from None
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
    # The wheel's compiled operators belong to another build of torch (CPU and CUDA wheels mixed) and did not load.
    # No classifier uses them, yet the import describes two of them to torch; declared by name, it goes through.
    torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    torch.library.define("torchvision::qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    return importlib.import_module("torchvision.models")
