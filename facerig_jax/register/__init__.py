"""Raw scans to the head's topology."""

from facerig_jax.register.register import RegisterConfig, Registration, register_scan
from facerig_jax.register.scan import Scan

__all__ = ["RegisterConfig", "Registration", "Scan", "register_scan"]
