"""Tests of the specification as plain values."""
