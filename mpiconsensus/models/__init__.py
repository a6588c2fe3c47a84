"""Models by name: float samples (B, *shape) to logits (B, classes), trained by cross entropy.

`shape` is the shape of one sample: (C, H, W) of images, (p,) of features. Built-in models stand in BUILT_IN, one a
file; any other name is a classification model of torchvision or, with a colon, a builder of the user's.
Parameters are drawn from torch's global generator: the same `torch.manual_seed`, the same model.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from mpiconsensus.errors import UserError, did_you_mean, require_choice
from mpiconsensus.models import custom, torchvision_models
from mpiconsensus.models.cifar_resnet import DEPTHS, CifarResNet
from mpiconsensus.models.digits_cnn import DigitsCNN
from mpiconsensus.models.fashion_cnn import FashionCNN
from mpiconsensus.models.linear import Linear
from mpiconsensus.models.logistic import Logistic
from mpiconsensus.models.mlp import MLP
from mpiconsensus.models.normalisation import replace_batch_norm
from mpiconsensus.models.stochastic import is_stochastic

__all__ = ["build", "default_name", "is_stochastic", "names", "torchvision_names"]

ANYTHING = 0


class Entry(NamedTuple):
    """A built-in model; `smallest` is the least side of an image in pixels, or ANYTHING (features too); `classes`: those that it
    is for, or ANYTHING."""

    make: Callable
    smallest: int
    description: str
    classes: int = ANYTHING


BUILT_IN = {
    "logistic": Entry(Logistic, ANYTHING, "logistic regression, for features and images"),
    "linear": Entry(Linear, ANYTHING, "logistic regression of two classes with one weight vector, no bias", 2),
    "mlp": Entry(MLP, ANYTHING, "multilayer perceptron with layers model.hidden, for features and images"),
    "digits-cnn": Entry(DigitsCNN, 2, "small CNN for the 8x8 digits: 3 convolutions, 19 k parameters"),
    "fashion-cnn": Entry(FashionCNN, 8, "CNN of the thesis for Fashion-MNIST: 2 convolutions, 1.48 M parameters"),
}
for _depth, _millions in DEPTHS.items():
    _description = f"CIFAR ResNet of depth {_depth} (He et al. 2016, option A): {_millions} M parameters"
    BUILT_IN[f"resnet{_depth}"] = Entry(partial(CifarResNet, depth=_depth), 1, _description)


def names():
    """Return the list of (name, one-line description) of the built-in models."""
    return [(name, entry.description) for name, entry in BUILT_IN.items()]


def torchvision_names():
    """Return the names of torchvision's classification models; imports torchvision, UserError where it is not."""
    return torchvision_models.names()


def default_name(dataset, shape):
    """Return the model that `model.name = "auto"` stands for.

    Features: logistic. The digits and any image under 16 pixels: digits-cnn. One channel of 28x28: fashion-cnn.
    Other images: resnet20 up to 64 pixels (3x32x32 is what it was made for), beyond them torchvision's resnet18.
    """
    if len(shape) == 1:
        return "logistic"
    if dataset == "digits" or max(shape[1:]) < 16:
        return "digits-cnn"
    if tuple(shape) == (1, 28, 28):
        return "fashion-cnn"
    return "resnet20" if max(shape[1:]) <= torchvision_models.SMALL_IMAGE else "resnet18"


def build(name, shape, classes, *, norm="batch", hidden=(64,)):
    """Return the untrained torch.nn.Module called `name` for samples of `shape`, in training mode.

    `norm` = "group" puts group normalisation in the place of batch normalisation, in every kind of model; `hidden`
    are the widths of the MLP. A local operation; torchvision is imported for its models alone.
    Raises UserError for an unknown name, for a model that does not take such samples, and for each way in which a
    user's builder can fail.
    """
    require_choice("model.norm", norm, ("batch", "group"))
    shape = tuple(shape)
    if len(shape) not in (1, 3):
        raise UserError(f"samples of shape {shape} are neither images (C, H, W) nor features (p,); reshape the data.")
    if ":" in name:
        module = custom.build(name, shape, classes)
    elif name in BUILT_IN:
        _check_fit(name, shape, classes)
        options = {"hidden": hidden} if name == "mlp" else {}
        module = BUILT_IN[name].make(shape, classes, **options)
    else:
        module = _torchvision(name, shape, classes)
    if norm == "group":
        module = replace_batch_norm(module)
    if name not in BUILT_IN:
        _try_forward(name, module, shape, classes)
    return module


def _check_fit(name, shape, classes):
    """Raise UserError unless the built-in model `name` takes samples of `shape` in `classes` classes."""
    smallest, wanted = BUILT_IN[name].smallest, BUILT_IN[name].classes
    if wanted not in (ANYTHING, classes):
        raise UserError(f"model.name = {name!r} is for {wanted} classes, and there are {classes}; choose {_fitting(shape, classes)}.")
    if smallest == ANYTHING:
        return
    if len(shape) == 1:
        raise UserError(f"model.name = {name!r} needs images, and these are {_told(shape)}; choose {_fitting(shape, classes)}.")
    if min(shape[1:]) < smallest:
        raise UserError(
            f"model.name = {name!r} needs images of at least {smallest} pixels a side, and these are {_told(shape)}; "
            f"choose {_fitting(shape, classes)}."
        )


def _told(shape):
    return f"{shape[0]} features" if len(shape) == 1 else "images of " + "x".join(map(str, shape))


def _fitting(shape, classes):
    side = ANYTHING if len(shape) == 1 else min(shape[1:])
    return " or ".join(name for name, entry in BUILT_IN.items() if entry.smallest <= side and entry.classes in (ANYTHING, classes))


def _torchvision(name, shape, classes):
    try:
        known = torchvision_models.names()
    except UserError as error:
        raise UserError(f"model.name = {name!r} is not built in, and {error}{did_you_mean(name, BUILT_IN)}") from None
    if name not in known:
        raise UserError(
            f"model.name = {name!r} is not known; choose auto, {', '.join(BUILT_IN)}, a classification model of "
            "torchvision, or package:builder; `mpiconsensus models` lists them."
            + did_you_mean(name, [*BUILT_IN, *known])
        )
    if len(shape) == 1:
        raise UserError(f"model.name = {name!r} needs images, and these are {_told(shape)}; choose {_fitting(shape, classes)}.")
    return torchvision_models.build(name, shape, classes)


def _try_forward(name, module, shape, classes):
    """Raise UserError unless `module` turns two samples of `shape` into logits; without training, so nothing moves."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            logits = module(torch.zeros(2, *shape))
    except Exception as error:  # noqa: BLE001 - a user's forward may raise anything
        if ":" not in name:
            raise UserError(torchvision_models.unfit(name, shape, error)) from None
        raise UserError(
            f"model.name = {name!r}: its forward of 2 samples of shape {shape} raised {custom.told(error)}."
        ) from None
    module.train(training)
    given = tuple(getattr(logits, "shape", ()))
    if given != (2, classes):
        raise UserError(
            f"model.name = {name!r}: its forward of 2 samples gave shape {given}; logits have shape {(2, classes)}."
        )
