"""A vCenter for tests: `tools/vcsim`, started, driven and ended from Python."""

from vcsim.certificate import Certificate
from vcsim.process import SimulatorError
from vcsim.simulator import Call, Simulator, running_simulator

__all__ = ["Call", "Certificate", "Simulator", "SimulatorError", "running_simulator"]
