"""trioreg: an OCI registry on Trio that keeps every promise it makes about memory."""

__version__ = "0.1.0"
