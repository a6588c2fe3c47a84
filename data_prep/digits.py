"""Divide the 1,797 digits of the UCI test set into HDF5 shards; the package has them embedded, too."""

import click
import common
import embedded

from mpiconsensus.data.partition import hold_out

FACTS = embedded.DIGITS._replace(prepared_by="data_prep/digits.py")


@click.command()
@common.arguments
@common.reports_errors
def main(raw, plan):
    """Divide the digits into HDF5 shards at OUT.

    RAW is UCI's optdigits.tes or scikit-learn's digits.csv or digits.csv.gz: lines of 64 values from 0 to 16 and a
    digit. The test samples are those of the embedded data set, 360 drawn with seed 1.
    """
    contents = {raw: common.read_raw(raw)}

    def read():
        shard = common.samples(*embedded.read_digits(raw))
        kept, held = hold_out(len(shard.y), embedded.TEST["digits"], embedded.SEED)
        return common.Found(shard.take(kept), shard.take(held), FACTS)

    common.prepare(plan, common.digests(contents), FACTS, read)


if __name__ == "__main__":
    main()
