"""Divide MNIST into HDF5 shards."""

import click
import common
import idx

from mpiconsensus.data.manifest import Facts

FACTS = Facts(
    dataset="mnist",
    shape=(1, 28, 28),
    class_names=tuple("0123456789"),
    scale=1 / 255,
    augment="none",
    licence="none stated by the publishers; cite the paper",
    citation="Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-Based Learning Applied to Document Recognition, "
    "Proceedings of the IEEE 86:11, 1998",
    prepared_by="data_prep/mnist.py",
    published_mean=(0.1307,),
    published_std=(0.3081,),
)


@click.command()
@common.arguments
@common.reports_errors
def main(raw, plan):
    """Divide MNIST into HDF5 shards at OUT.

    RAW is the folder mnist (train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz and the two of t10k, packed
    or not), or the folder that holds it.
    """
    idx.prepare(raw, plan, "mnist", FACTS)


if __name__ == "__main__":
    main()
