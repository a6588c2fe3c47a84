"""Models by name: sizes against published counts, parts against hand computation, one training step of each kind."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from mpiconsensus import models
from mpiconsensus.errors import UserError
from mpiconsensus.models import torchvision_models
from mpiconsensus.models.cifar_resnet import Block, OptionA

DIGITS, FASHION, CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)

BUILT_IN = [
    ("logistic", (112,), 2),
    ("logistic", FASHION, 10),
    ("linear", (112,), 2),
    ("linear", FASHION, 2),
    ("mlp", (112,), 2),
    ("mlp", CIFAR, 10),
    ("digits-cnn", DIGITS, 10),
    ("digits-cnn", (3, 9, 13), 7),
    ("fashion-cnn", FASHION, 10),
    ("fashion-cnn", (3, 8, 11), 2),
    ("resnet20", CIFAR, 10),
    ("resnet20", DIGITS, 10),
    ("resnet32", CIFAR, 100),
    ("resnet44", CIFAR, 10),
    ("resnet56", CIFAR, 10),
    ("resnet110", CIFAR, 10),
]

# Name -> the module whose output is the last map of features, and the sides of that map for 32x32 images.
TORCHVISION = {
    "resnet18": ("layer4", 4),
    "wide_resnet50_2": ("layer4", 4),
    "resnext50_32x4d": ("layer4", 4),
    "densenet121": ("features", 4),
    "googlenet": ("inception5b", 4),
    "inception_v3": ("Mixed_7c", 2),
    "mobilenet_v2": ("features", 4),
    "mobilenet_v3_small": ("features", 4),
    "mobilenet_v3_large": ("features", 4),
    "mnasnet0_5": ("layers", 4),
    "efficientnet_b0": ("features", 4),
    "efficientnet_v2_s": ("features", 4),
    "shufflenet_v2_x1_0": ("conv5", 4),
    "squeezenet1_0": ("features", 4),
    "squeezenet1_1": ("features", 4),
    "regnet_y_400mf": ("trunk_output", 4),
    "convnext_tiny": ("features", 4),
    "alexnet": ("features", 3),
    "vgg11_bn": ("features", 1),
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def size(module):
    return sum(p.numel() for p in module.parameters())


def batch_norms(module):
    return [m for m in module.modules() if isinstance(m, _BatchNorm)]


def step(module, shape, classes):
    """Take one SGD step on four samples; return the loss and the parameters before and after."""
    x, y = torch.randn(4, *shape), torch.arange(4) % classes
    before = [p.detach().clone() for p in module.parameters()]
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    logits = module(x)
    assert logits.shape == (4, classes)
    loss = F.cross_entropy(logits, y)
    loss.backward()
    optimizer.step()
    return loss.item(), before, [p.detach() for p in module.parameters()]


# Sizes


@pytest.mark.parametrize(
    "name, shape, classes, parameters",
    [
        ("logistic", (112,), 2, 2 * 113),
        ("logistic", FASHION, 10, 7850),
        ("linear", (112,), 2, 112),
        ("mlp", (112,), 2, 113 * 64 + 65 * 2),
        ("digits-cnn", DIGITS, 10, (9 * 16 + 32) + (9 * 16 * 32 + 64) + (9 * 32 * 32 + 64) + (512 * 10 + 10)),
        ("fashion-cnn", FASHION, 10, 1_475_338),
        ("resnet20", CIFAR, 10, 269_722),
        ("resnet32", CIFAR, 10, 464_154),
        ("resnet44", CIFAR, 10, 658_586),
        ("resnet56", CIFAR, 10, 853_018),
        ("resnet110", CIFAR, 10, 1_727_962),
        # The ResNet-18 that is usual for CIFAR-10, and torchvision's own tables for ImageNet.
        ("resnet18", CIFAR, 10, 11_173_962),
        ("resnet18", (3, 224, 224), 1000, 11_689_512),
        ("mobilenet_v3_small", (3, 224, 224), 1000, 2_542_856),
        ("squeezenet1_1", (3, 224, 224), 1000, 1_235_496),
        ("shufflenet_v2_x1_0", (3, 224, 224), 1000, 2_278_604),
    ],
)
def test_parameter_counts_are_the_published_ones(name, shape, classes, parameters):
    assert size(models.build(name, shape, classes)) == parameters


def test_hidden_gives_the_widths_of_the_mlp():
    module = models.build("mlp", (5,), 3, hidden=[7, 11])
    assert [(m.in_features, m.out_features) for m in module if isinstance(m, nn.Linear)] == [(5, 7), (7, 11), (11, 3)]


# One step of every model


@pytest.mark.parametrize("name, shape, classes", BUILT_IN)
def test_a_built_in_model_takes_a_step(name, shape, classes):
    loss, before, after = step(models.build(name, shape, classes), shape, classes)
    assert np.isfinite(loss)
    assert all(torch.isfinite(p).all() for p in after)
    # A bias before batch normalisation may rest: its gradient is rounding.
    assert all(not torch.equal(a, b) for a, b in zip(before, after) if a.dim() > 1)


@pytest.mark.parametrize("name", TORCHVISION)
def test_a_torchvision_model_takes_a_step_on_small_images(name):
    module, maps = models.build(name, CIFAR, 10), []
    layer, side = TORCHVISION[name]
    module.get_submodule(layer).register_forward_hook(lambda _, __, out: maps.append(out.shape[2:]))
    loss, before, after = step(module, CIFAR, 10)
    assert maps == [(side, side)]
    assert np.isfinite(loss)
    assert all(torch.isfinite(p).all() for p in after)
    # Some parameters may rest: stochastic depth can drop a block for all four samples. First and last may not.
    assert not torch.equal(before[0], after[0]) and not torch.equal(before[-1], after[-1])


@pytest.mark.parametrize("side, stride", [(64, 1), (65, 2)])
def test_the_stem_changes_up_to_64_pixels(side, stride):
    module = models.build("resnet18", (3, 20, side), 10)
    assert module.conv1.stride == (stride, stride)
    assert isinstance(module.maxpool, nn.Identity) == (stride == 1)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "swin_t", "convnext_tiny"])
@pytest.mark.parametrize("side", [32, 72])
def test_other_than_three_channels(name, side):
    module = models.build(name, (2, side, side), 5)
    assert module(torch.zeros(1, 2, side, side)).shape == (1, 5)


def test_a_replaced_first_convolution_starts_as_he_et_al_say():
    weight = models.build("resnet18", (40, 32, 32), 10).conv1.weight
    expected = np.sqrt(2 / (40 * 9))
    assert weight.shape == (64, 40, 3, 3)
    assert abs(weight.std().item() / expected - 1) < 5 / np.sqrt(2 * weight.numel())
    assert models.build("squeezenet1_1", (1, 32, 32), 10).features[0].bias.abs().max() == 0


def test_vision_transformers_take_sizes_that_their_patches_divide():
    assert models.build("vit_b_16", CIFAR, 3)(torch.zeros(2, *CIFAR)).shape == (2, 3)


# Parts against hand computation


def test_option_a_takes_every_second_pixel_and_appends_zeros():
    x = torch.tensor([[[[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]]])
    expected = torch.tensor([[[[1.0, 3], [7, 9]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]]])
    assert torch.equal(OptionA(2)(x), expected)
    assert size(OptionA(2)) == 0


@pytest.mark.parametrize("channels, wider, stride", [(4, 4, 1), (4, 8, 2)])
def test_a_residual_block_is_relu_of_branch_plus_shortcut(channels, wider, stride):
    block = Block(channels, wider).double().eval()
    for norm in (block.norm1, block.norm2):
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            nn.init.normal_(tensor)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    x = torch.randn(2, channels, 6, 6, dtype=torch.float64)

    def normed(z, norm):
        mean, var, a, b = (t[:, None, None] for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias))
        return (z - mean) / (var + norm.eps).sqrt() * a + b

    y = normed(F.conv2d(x, block.conv1.weight, stride=stride, padding=1), block.norm1).clamp(min=0)
    y = normed(F.conv2d(y, block.conv2.weight, padding=1), block.norm2)
    y[:, :channels] += x[:, :, ::stride, ::stride]
    torch.testing.assert_close(block(x), y.clamp(min=0), rtol=1e-12, atol=1e-12)


def test_resnet_convolutions_start_as_he_et_al_say():
    for weight in (m.weight for m in models.build("resnet20", CIFAR, 10).modules() if isinstance(m, nn.Conv2d)):
        expected = np.sqrt(2 / (9 * weight.shape[0]))
        assert abs(weight.std().item() / expected - 1) < 5 / np.sqrt(2 * weight.numel())


def test_the_fashion_cnn_is_the_one_of_the_thesis():
    module = models.build("fashion-cnn", FASHION, 10).double().eval()
    assert [m.p for m in module.modules() if isinstance(m, nn.Dropout)] == [0.25]
    w1, b1, a1, c1, w2, b2, a2, c2, *fc = module.parameters()
    x = torch.randn(3, *FASHION, dtype=torch.float64)
    y = x
    for w, b, a, c, padding in ((w1, b1, a1, c1, 1), (w2, b2, a2, c2, 0)):
        y = F.conv2d(y, w, b, padding=padding) / np.sqrt(1 + 1e-5) * a[:, None, None] + c[:, None, None]
        y = F.max_pool2d(y.clamp(min=0), 2)
    assert y.shape == (3, 64, 6, 6)
    y = y.reshape(3, 2304)
    for w, b in zip(fc[::2], fc[1::2]):
        y = y @ w.T + b
    torch.testing.assert_close(module(x), y, rtol=1e-12, atol=1e-12)


def test_logistic_and_mlp_are_their_formulas():
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    flat = x.numpy().reshape(4, 12)
    for name, hidden in (("logistic", ()), ("mlp", (5, 6))):
        module = models.build(name, (3, 2, 2), 3, hidden=hidden).double()
        *hidden_maps, a, b = (p.detach().numpy() for p in module.parameters())
        assert len(hidden_maps) == 2 * len(hidden)
        h = flat
        for weight, bias in zip(hidden_maps[::2], hidden_maps[1::2]):
            h = np.maximum(0, h @ weight.T + bias)
        np.testing.assert_allclose(module(x).detach().numpy(), h @ a.T + b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(6,), (3, 2, 1)])
def test_cross_entropy_of_linear_is_the_logistic_loss_of_one_vector(shape):
    module = models.build("linear", shape, 2).double()
    x, labels = torch.randn(9, *shape, dtype=torch.float64), torch.arange(9) % 2
    loss = F.cross_entropy(module(x), labels, reduction="none")
    (a,) = (p.detach().numpy().ravel() for p in module.parameters())
    signs = 2 * labels.numpy() - 1
    expected = np.log1p(np.exp(-signs * (x.numpy().reshape(9, 6) @ a)))
    np.testing.assert_allclose(loss.detach().numpy(), expected, rtol=1e-13)


# Names and errors


def test_names_are_what_build_takes():
    entries = models.names()
    assert {name for name, _, _ in BUILT_IN} == {name for name, _ in entries}
    assert all(text and "\n" not in text for _, text in entries)
    assert {"resnet18", "vit_b_16"} <= set(models.torchvision_names())
    assert "fasterrcnn_resnet50_fpn" not in models.torchvision_names()


@pytest.mark.parametrize(
    "dataset, shape, name",
    [
        ("mushrooms", (112,), "logistic"),
        ("digits", DIGITS, "digits-cnn"),
        ("digits", (1, 16, 16), "digits-cnn"),
        ("fashion-mnist", FASHION, "fashion-cnn"),
        ("cifar-10", CIFAR, "resnet20"),
        ("mine", (1, 6, 6), "digits-cnn"),
        ("mine", (3, 96, 96), "resnet18"),
    ],
)
def test_default_names_fit_their_data(dataset, shape, name):
    assert models.default_name(dataset, shape) == name
    assert models.build(name, shape, 3).training


@pytest.mark.parametrize(
    "name, shape, options, words",
    [
        ("resnet-20", CIFAR, {}, ["'resnet-20'", "Did you mean 'resnet20'?", "`mpiconsensus models`"]),
        ("mobilnet_v3_small", CIFAR, {}, ["Did you mean 'mobilenet_v3_small'?"]),
        ("resnet20", (112,), {}, ["needs images", "112 features", "logistic or mlp."]),
        ("resnet18", (112,), {}, ["needs images", "112 features", "logistic or mlp."]),
        ("fashion-cnn", (1, 7, 28), {}, ["at least 8 pixels", "1x7x28", "digits-cnn or resnet20"]),
        ("alexnet", DIGITS, {}, ["'alexnet'", "1x8x8", "too small"]),
        ("vit_b_16", FASHION, {}, ["1x28x28", "patch size"]),
        ("vit_b_16", (3, 32, 48), {}, ["3x32x48", "width"]),
        ("maxvit_t", CIFAR, {}, ["3x32x32", "partition size 7"]),
        ("mlp", (28, 28), {}, ["(28, 28)", "(C, H, W)", "(p,)"]),
        ("linear", (112,), {}, ["'linear' is for 2 classes", "there are 10", "choose logistic or mlp."]),
        ("resnet20", CIFAR, {"norm": "layer"}, ["model.norm", "'layer'", "batch, group"]),
    ],
)
def test_what_does_not_fit_is_named(name, shape, options, words):
    with pytest.raises(UserError) as caught:
        models.build(name, shape, 10, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert all(word in text for word in words), text


def test_without_torchvision_the_built_in_models_work(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    models.build("resnet20", CIFAR, 10)
    with pytest.raises(UserError, match="pip install torchvision.*Did you mean 'fashion-cnn'"):
        models.build("fashon-cnn", FASHION, 10)


def test_another_failure_of_torchvision_is_not_hidden(monkeypatch):
    calls = []

    def broken(name):
        calls.append(name)
        raise RuntimeError("operator torchvision::roi_align does not exist")

    monkeypatch.setattr(torchvision_models.importlib, "import_module", broken)
    with pytest.raises(RuntimeError, match="roi_align"):
        models.torchvision_names()
    assert calls == ["torchvision.models"]


def test_importing_and_building_load_neither_torchvision_nor_mpi():
    code = (
        "import sys; from mpiconsensus import models; models.build('resnet20', (3, 32, 32), 10); "
        "print([m for m in ('torchvision', 'mpi4py', 'scipy', 'networkx', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
