"""What a run says on the terminal: a header, a line an epoch, a closing table. Rank 0 alone speaks.

Plain lines, the same on a terminal and in a file; a copy goes to stdout.log in the run directory.
"""

import sys
from contextlib import suppress

from mpiconsensus import report, tabletext
from mpiconsensus.runread import Run

WIDTHS = (5, 8, 15, 12, 9, 9, 9, 8)


class Progress:
    """Lines to standard output and to stdout.log of the run directory."""

    def __init__(self, directory, resumed=False):
        self.file = (directory / "stdout.log").open("a" if resumed else "w")

    def say(self, line=""):
        print(line, flush=True)
        self.file.write(line + "\n")
        self.file.flush()

    def warn(self, text):
        """Say a warning on standard error too; a disk that is full does not stop it."""
        print(f"warning: {text}", file=sys.stderr, flush=True)
        with suppress(OSError):
            self.say(f"warning    {text}")

    def resumed(self, found, total_steps):
        """Say where a run goes on."""
        content = found.content
        self.say(f"resumed    going on at step {content['step']} of {total_steps}, epoch {content['step'] // content['steps_per_epoch'] + 1}, from checkpoint {found.path} of {content['written']}, written by {content['ranks']} rank{'s' * (content['ranks'] > 1)}")

    def header(self, facts, wiring, plan, trainer, found=None):
        job, source = trainer.job, trainer.source
        sizes = sorted(set(source.sizes))
        shards = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        self.say(f"mpiconsensus {facts['mpiconsensus']}")
        self.say(f"graph      {wiring.spec}, {wiring.n} vertices, {len(wiring.edges)} {wiring.links}{' in all exchanges' * bool(wiring.changing)}; {wiring.weights} weights, |lambda_2| = {wiring.second_modulus:.4f}")
        shuffling = trainer.samples.shuffling
        moves = f"shuffled between vertices: {shuffling.describe()}" if shuffling else "they stay at their vertex"
        self.say(f"data       {source.name}, {sum(source.sizes)} training samples, {shards} a vertex; {moves}")
        self.say(f"model      {facts['model']}, {facts['parameters']:,} parameters; buffers {job.model.buffers}, momentum {job.training.momentum_policy}")
        self.say(f"algorithm  {trainer.algorithm.describe()}")
        if unused := trainer.algorithm.unused():
            self.say(f"warning    {', '.join(unused)}: means nothing for {job.algorithm.name}")
        self.say(f"training   {job.training.optimizer}, lr {job.training.lr:g}, batch {job.training.batch_size} a vertex, {trainer.steps_per_epoch} steps an epoch")
        periods = trainer.algorithm.train_every
        if len(set(source.sizes)) > 2 or len(set(periods)) > 1:
            passes = [trainer.steps_per_epoch // q * job.training.batch_size / size for q, size in zip(periods, source.sizes, strict=True)]
            each = ", ".join(map(str, periods[:12])) + (", ..." if len(periods) > 12 else "")
            self.say(f"unequal    gradients every {each} steps; an epoch passes over a shard {min(passes):.1f} to {max(passes):.1f} times")
        self.say(f"runs on    {facts['ranks']} rank{'s' * (facts['ranks'] > 1)} x {facts['threads']} thread{'s' * (facts['threads'] > 1)}, {facts['nodes']} node{'s' * (facts['nodes'] > 1)}, {facts['device']}; transport {facts['transport']}; {facts['mpi']}")
        self.say(f"placement  {trainer.placement.describe(wiring.edges, wiring.links)}")
        if job.training.concurrency != "serial":
            self.say(f"gradients  {trainer.concurrency.describe()}")
        where = "held-out samples" if job.evaluation.validation_fraction else f"{plan.samples} test samples"
        every = "every epoch" if plan.every == 1 else f"every {plan.every} epochs"
        self.say(f"evaluation {where}, {every}; all test samples at the end")
        if trainer.algorithm.asynchronous and facts["ranks"] > 1:
            self.say("epochs     loss, accuracy, samples/s and MB sent of a line are those of rank 0's own vertices; the log has all")
        if found:
            self.resumed(found, trainer.total_steps)
        self.say()
        self._row(report.EPOCH)

    def epoch(self, row):
        """Print the line of an epoch; `row` as report.epochs makes them."""
        self._row(report.epoch_cells(row))

    def _row(self, cells):
        self.say("  ".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True)))

    def ending(self, spread, mass):
        """Say how an asynchronous run ended: how far apart, and what mass is left."""
        told = f"the vertices ended {spread:.3g} apart (consensus distance)"
        lost = "" if abs(mass - 1.0) < 1e-9 else f"; they hold {mass:.6g} of the push-sum weight: the rest was lost"
        self.say(f"ended      {told}{lost}")

    def close(self, directory):
        """Print the closing table from the assembled log, and where everything lies."""
        self.say()
        for line in tabletext.plain(["closing evaluation", ""], report.closing_rows(report.summary(Run(directory)))):
            self.say(line)
        self.say()
        self.say(f"log     {directory}/run.h5 (mpiconsensus report {directory})")
        self.say(f"models  {directory}/model (mpiconsensus export {directory} --vertex mean)")
        self.file.close()
