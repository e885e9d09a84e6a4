"""Where bytes live: blobs by digest, upload sessions, and small objects by key.

`base` holds the Protocols and their contract; drivers are `filesystem` and `memory`; `catalog` is
written once over small objects and serves every driver.
"""
