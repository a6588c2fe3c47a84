"""The files of --json and --plot, never over a file that is there."""

import importlib.util
import json
from pathlib import Path

import click

from mpiconsensus.errors import TrainingError, UserError

FORMAT, VERSION = "mpiconsensus bench", 1
SUFFIXES = (".png", ".pdf", ".svg")


def check_files(world, json_file, plot_file):
    """Raise UserError on every rank, ahead of any measurement, unless the files can be made; collective."""

    def check():
        for option, name in (("--json", json_file), ("--plot", plot_file)):
            if name is None:
                continue
            path = Path(name)
            try:
                if not path.absolute().parent.is_dir():
                    raise UserError(f"{option} {name}: there is no directory {str(path.parent)!r}; make it, or give another place.")
                open(path, "x").close()
                path.unlink()
            except FileExistsError:
                raise UserError(f"{option} {name}: the file is there already, and is not written over; give another name or move it away.") from None
            except OSError as error:
                raise UserError(f"{option} {name!r}: the file cannot be made: {error.strerror}; give another place.") from None
        if plot_file is None:
            return
        if Path(plot_file).suffix.lower() not in SUFFIXES:
            raise UserError(f"--plot {plot_file}: the suffix says the format; choose one of {', '.join(SUFFIXES)}.")
        if plot_file == json_file:
            raise UserError(f"--json and --plot both name {plot_file}; give each a file of its own.")
        if not importlib.util.find_spec("matplotlib"):
            raise UserError("pictures need matplotlib; install it: pip install matplotlib.")

    world.agree(check if world.rank == 0 else lambda: None)


def result(kind, machine, settings, **found):
    """Return the dict that --json writes: format, version, kind, machine, settings, and what was found."""
    return {"format": FORMAT, "version": VERSION, "kind": kind, "machine": machine, "settings": settings, **found}


def write(result, json_file, plot_file, draw):
    """Write the files that were asked for; `draw(result)` returns a matplotlib figure.

    Raise TrainingError where the disk refuses them, or another program made one of them meanwhile.
    """
    try:
        if json_file is not None:
            with open(json_file, "x", encoding="utf-8") as file:
                json.dump(result, file, indent=1)
                file.write("\n")
            click.echo(f"figures    {json_file}")
        if plot_file is not None:
            with open(plot_file, "xb") as file:
                draw(result).savefig(file, format=Path(plot_file).suffix.lower()[1:], dpi=200)
            click.echo(f"picture    {plot_file}")
    except OSError as error:
        raise TrainingError(f"the figures cannot be written: {error}.") from error
