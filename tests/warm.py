"""What each run imports late, imported once: the fork server loads this before it forks.

A child that composes, builds and imports by itself takes twice as long. Nothing is trained here: a
process that forks may have no threads.
"""

# Arrow imports it with the first row, where it is installed.
import pandas  # noqa: F401

from attnlab.config import compose, search_path
from attnlab.experiment import Experiment
from tests.child import TINY

with search_path() as own:
    Experiment(compose(TINY, own))
