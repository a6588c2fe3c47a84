"""Commands for many runs: sweep, cancel."""

import click

from mpiconsensus import signals
from mpiconsensus.errors import UserError

SUBMIT = "--submit"


class WithSlurm(click.Command):
    """A command whose words behind --submit are those of another program."""

    def parse_args(self, context, args):
        at = args.index(SUBMIT) + 1 if SUBMIT in args else len(args)
        own = [option for p in self.params for option in p.opts if option.startswith("--")]
        for word in args[at:]:
            if (option := word.partition("=")[0]) in own:
                raise UserError(f"{option} stands behind {SUBMIT}, where words go to sbatch; write it ahead of {SUBMIT}.")
        context.obj = tuple(args[at:])
        return super().parse_args(context, args[:at])


@click.command(cls=WithSlurm)
@click.argument("file")
@click.option("--out", metavar="DIR", help="Directory of the sweep's runs; one that holds this sweep is gone on with. Default: log.directory and the sweep's name.")
@click.option("--set", "overrides", multiple=True, metavar="TABLE.KEY=VALUE", help="Override a key in every run; may be repeated.")
@click.option("--ranks", type=click.IntRange(1), metavar="R", help="Ranks a run, at most its vertices. Default: one process with --local, with --submit one a vertex.")
@click.option("--at-once", type=click.IntRange(1), metavar="K", help="Runs side by side. Default: with --local as many as the cores carry, with --submit no bound.")
@click.option("--dry-run", is_flag=True, help="List the runs and what each costs; train nothing, write nothing.")
@click.option("--local", is_flag=True, help="Train here the runs that are missing; a signal stops them behind checkpoints.")
@click.option(SUBMIT, is_flag=True, help="File the runs that are missing as one job array of Slurm; the words behind it go to sbatch.")
@click.pass_context
def sweep(context, file, out, overrides, ranks, at_once, dry_run, local, submit):
    """Train a run for each combination of the lists in the TOML file FILE (docs/sweeps.md), each in a directory of its own.

    Called again it goes on with what is missing.
    """
    if dry_run + local + submit != 1:
        raise UserError("say what the sweep is to do: --dry-run lists its runs, --local trains them here, --submit files them with Slurm; one of these.")
    told = signals.Signals()
    if local:
        told.catch(signals.USER + signals.END)
    from mpiconsensus.sweep import plan

    made = plan.read(file, overrides, out, ranks)
    if dry_run:
        from mpiconsensus.sweep import costs

        click.echo("\n".join(costs.table(costs.figures(made))))
    elif submit:
        from mpiconsensus.sweep import submit as arrays

        arrays.submit(made, ranks, at_once, context.obj, click.echo)
    else:
        from mpiconsensus.sweep import local as here

        here.train(made, ranks or 1, at_once, click.echo, told)


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN|DIR...")
def cancel(runs):
    """End runs, or the runs of a sweep, that are under way: tasks of Slurm by scancel, processes of this host behind a checkpoint."""
    from mpiconsensus.sweep import cancel as ends

    ends.cancel(runs, click.echo)
