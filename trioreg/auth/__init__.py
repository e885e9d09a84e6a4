"""Who may do what. Today everyone may do everything; the seam is where access will be decided."""
