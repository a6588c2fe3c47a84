"""A model that came out of a run, loaded and evaluated without the run's graph, ranks or optimizer."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

from mpiconsensus import modelfiles, models
from mpiconsensus.data.augment import Augment
from mpiconsensus.data.source import EMBEDDED, open_test
from mpiconsensus.errors import UserError
from mpiconsensus.runread import Run


def load_model(run_dir, vertex="mean", which="last"):
    """Return (module in evaluation mode, metadata) of a vertex, "mean" or "best" of a run; UserError where there is none."""
    state, facts = modelfiles.load(run_dir, vertex, which)
    module = models.build(facts["model"], tuple(facts["shape"]), facts["classes"], norm=facts["norm"], hidden=tuple(facts["hidden"]))
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"model {facts['model']!r} of run {str(run_dir)!r} does not fit its file: {str(error).splitlines()[-1].strip()}") from None
    return module.eval(), facts


@torch.no_grad()
def evaluate(run_dir, shards=None, vertex="mean", which="last", batch_size=256):
    """Return (accuracy, mean loss, samples) on the test set of the run's data, or of the directory `shards`."""
    module, facts = load_model(run_dir, vertex, which)
    data = SimpleNamespace(**Run(run_dir).config["data"])
    if shards:
        data.shards = shards
    elif not data.shards and data.dataset not in EMBEDDED:
        raise UserError(f"run {str(run_dir)!r} does not say where its data lie; give --data SHARDS.")
    source, test = open_test(data)
    if tuple(source.shape) != tuple(facts["shape"]) or source.classes != facts["classes"]:
        raise UserError(
            f"{source.name} has samples of {tuple(source.shape)} in {source.classes} classes, the model was trained on "
            f"{facts['dataset']}: {tuple(facts['shape'])} in {facts['classes']} classes; give shards of such data."
        )
    # What the model saw in training: its own normalisation, not that of the data it is shown here.
    augment = Augment("none", facts["mean"], facts["std"], facts["scale"], torch.float32)
    correct, loss = 0, 0.0
    for at in range(0, len(test.y), batch_size):
        labels = torch.from_numpy(test.y[at : at + batch_size])
        logits = module(augment.evaluate(test.x[at : at + batch_size]))
        correct += int((logits.argmax(1) == labels).sum())
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
    return correct / len(test.y), loss / len(test.y), len(test.y)
