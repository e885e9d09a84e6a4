"""Tests of storage: one suite for every driver, and what only a directory can show."""
