"""A model of one's own: `model.name = "package:builder"`.

`builder(shape=..., classes=...)` returns a torch.nn.Module that maps float samples (B, *shape) to logits
(B, classes). The current directory is importable, as with `python -m`.
"""

import importlib
import os
import sys
import traceback

from torch import nn

from mpiconsensus.errors import UserError, did_you_mean


def build(name, shape, classes):
    """Return the module that the builder `name`, "package:builder", makes; UserError for each way it can fail."""
    package, _, attribute = name.partition(":")
    if not (all(part.isidentifier() for part in package.split(".")) and attribute.isidentifier()):
        raise UserError(f"model.name = {name!r}: write package:builder, for example mymodels:small_cnn.")
    builder = _builder(name, package, attribute)
    call = f"{attribute}(shape={tuple(shape)}, classes={classes})"
    try:
        module = builder(shape=tuple(shape), classes=classes)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's code may raise anything
        raise UserError(f"model.name = {name!r}: {call} raised {told(error)}.") from None
    if not isinstance(module, nn.Module):
        raise UserError(f"model.name = {name!r}: {call} gave a {type(module).__name__}; return a torch.nn.Module.")
    return module


def _builder(name, package, attribute):
    """Return the callable `attribute` of the module `package`."""
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(package)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's code may raise anything
        if isinstance(error, ModuleNotFoundError) and f"{package}.".startswith(f"{error.name}."):
            raise UserError(
                f"model.name = {name!r}: no module {error.name!r}; start in the directory that holds it "
                f"(this is {os.getcwd()}), or install it."
            ) from None
        raise UserError(f"model.name = {name!r}: importing {package} raised {told(error)}.") from None
    if not hasattr(module, attribute):
        own = [word for word, value in vars(module).items() if getattr(value, "__module__", None) == package]
        raise UserError(
            f"model.name = {name!r}: {package} has no {attribute!r}; it defines {', '.join(own) or 'nothing to call'}."
            + did_you_mean(attribute, own)
        )
    builder = getattr(module, attribute)
    if not callable(builder):
        raise UserError(
            f"model.name = {name!r}: {attribute} is not callable but a {type(builder).__name__}; "
            "name a function of shape and classes."
        )
    return builder


def told(error):
    """Return an exception as one line: its type, its words and the line of code that it left from."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
    if isinstance(error, SyntaxError):
        return text
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{text} ({frame.filename}, line {frame.lineno})"
