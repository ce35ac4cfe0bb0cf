"""What else the machine did while something was timed."""

from runners.efficiency.neighbours import Neighbours

__all__ = ["Neighbours"]
