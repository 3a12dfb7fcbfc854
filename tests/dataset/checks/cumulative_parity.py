from tests.dataset.checks.parity import answers

__all__ = ["answers"]
