"""What runs left behind, read again: the report, the comparison and the fitted formula.

Nothing here starts a server or measures anything. The rule: a figure that is shown was in a run's
folder or is computed from it, and a run that is not whole is named instead of guessed at.
"""
