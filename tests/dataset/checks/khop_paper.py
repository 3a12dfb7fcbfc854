from tests.dataset.checks.khop import answers

__all__ = ["answers"]
