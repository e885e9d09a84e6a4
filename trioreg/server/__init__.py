"""Hypercorn on Trio: listeners, TLS, connections, shutdown. The only package that imports hypercorn."""
