"""How bytes flow: receive → digest → write, in blocks that come from one budget.

Writes through the storage Protocols, never through a driver; knows nothing of HTTP.
"""
