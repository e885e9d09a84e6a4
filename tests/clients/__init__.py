"""The programs people use, against a live server."""
