from tests.dataset.checks.majority import answers

__all__ = ["answers"]
