from tests.dataset.checks.modular import answers

__all__ = ["answers"]
