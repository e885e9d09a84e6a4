"""The Quart-trio application: every API operation over ASGI. The only package that imports quart."""

from trioreg.web.spared import spared

with spared():
    from trioreg.web.app import create_app

__all__ = ["create_app"]
