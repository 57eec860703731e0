"""The scorer process: standard library only, in syntax that Python 3.6 accepts.

This package runs in the user's interpreter as well as in ours. It imports nothing of the rest.
"""
