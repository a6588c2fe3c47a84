"""Divide Fashion-MNIST into HDF5 shards."""

import click
import common
import idx

from mpiconsensus.data.manifest import Facts

FACTS = Facts(
    dataset="fashion-mnist",
    shape=(1, 28, 28),
    class_names=("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    scale=1 / 255,
    augment="none",
    licence="MIT, Zalando SE",
    citation="H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking "
    "Machine Learning Algorithms, arXiv:1708.07747, 2017",
    prepared_by="data_prep/fashion_mnist.py",
    published_mean=(0.28604,),
    published_std=(0.35302,),
)


@click.command()
@common.arguments
@common.reports_errors
def main(raw, plan):
    """Divide Fashion-MNIST into HDF5 shards at OUT.

    RAW is the folder fashion-mnist (train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz and the two of t10k, packed
    or not), or the folder that holds it.
    """
    idx.prepare(raw, plan, "fashion-mnist", FACTS)


if __name__ == "__main__":
    main()
