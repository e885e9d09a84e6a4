"""Faults between any two steps: errors, deaths of the process, losses of power, full disks."""
