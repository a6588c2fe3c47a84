"""mpiconsensus: decentralised training of neural networks over the edges of a graph, on MPI."""

__version__ = "0.1.0"


def __getattr__(name):
    # torch takes seconds to import; a login node that asks for a version or a help text does not need it.
    if name == "Network":
        from mpiconsensus.network import Network

        return Network
    raise AttributeError(f"module 'mpiconsensus' has no attribute {name!r}")
