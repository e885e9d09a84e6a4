"""The specification of an OCI registry as plain values.

Synchronous, standard library and msgspec only, imports nothing else of ours: a function in here that
wants ``await`` is in the wrong package. Text is parsed once, at the edge, into values that cannot be wrong.
"""
