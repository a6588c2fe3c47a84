"""What a job has to be for a compressed algorithm, and learning rates from the step sizes of theory."""

import torch

from mpiconsensus.errors import UserError


def check(trainer):
    """Raise UserError where a compressed algorithm cannot train the job of a trainer."""
    algorithm, training = trainer.algorithm, trainer.job.training
    if algorithm.averages_gradients and training.init != "identical":
        raise UserError(f"algorithm.name = {algorithm.name} keeps replicas equal that start equal; take training.init = identical.")
    if algorithm.whole_shards and max(loader.batches_per_pass for loader in trainer.loaders) > 1:
        size = max(len(loader.shard.y) for loader in trainer.loaders)
        raise UserError(
            f"algorithm.name = {algorithm.name} needs gradients of whole shards: with batches what they differ in stays in its memory; "
            f"take training.batch_size = {size}, or algorithm.name = ef21 or diana."
        )


def theory(trainer, options):
    """Return the learning rate options.multiple times the step size of theory; collective."""
    return options.multiple * trainer.algorithm.rate(smoothness(trainer, options), trainer.placement.n)


def smoothness(trainer, options):
    """Return (L, sqrt(mean L_i^2)), as given or measured; collective."""
    given = options.smoothness
    if given and len(given) != 2:
        raise UserError(f"compression.smoothness = {given} has {len(given)} numbers; give two: L, and sqrt(mean L_i^2); or none.")
    return tuple(given) or measured(trainer)


def measured(trainer):
    """Return (L, sqrt(mean L_i^2)) of binary logistic regression on the features as training sees them; collective.

    The logistic loss has curvature 1/4 at most, so L_i = |A_i' A_i| / (4 N_i) + 2 c for the regulariser c sum x^2 / (1 + x^2),
    whose second derivative is 2 c at most. L is that of all samples together, each counted once.
    """
    if trainer.job.model.name != "linear":
        raise UserError(
            "compression.multiple, and importance without compression.importance_eta, need the smoothness of the losses, which is computed "
            "for model.name = linear alone; give compression.smoothness = [L, sqrt(mean L_i^2)], or training.lr and an eta."
        )
    mean, curvature = trainer.reduction.mean, 2 * trainer.job.training.nonconvex
    sums, sizes, squares = [], [], []
    for loader in trainer.loaders:
        a = trainer.augment.evaluate(loader.shard.x).double().reshape(len(loader.shard.y), -1)
        sums.append(a.T @ a)
        sizes.append(torch.tensor([float(len(a))], dtype=torch.float64))
        squares.append(((_largest(sums[-1]) / len(a) / 4 + curvature) ** 2).reshape(1))
    # One buffer serves means of one length: the sizes go first.
    size = float(mean(sizes))
    each = float(mean(squares)) ** 0.5
    whole = _largest(mean([gram.reshape(-1) for gram in sums]).reshape(sums[0].shape)) / size / 4 + curvature
    # The last bits of an eigenvalue depend on the threads of the library.
    return tuple(float(f"{float(value):.12g}") for value in (whole, each))


def _largest(gram):
    return torch.linalg.eigvalsh(gram)[-1]
