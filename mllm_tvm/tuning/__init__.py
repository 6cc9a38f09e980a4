"""Autotuning of the NPU kernels: MetaSchedule searches, devices count packets, logs keep what was found."""

from mllm_tvm.tuning.errors import TuningError
from mllm_tvm.tuning.log import TuningLog
from mllm_tvm.tuning.tilings import choose_tilings
from mllm_tvm.tuning.workload import Shape

__all__ = ["Shape", "TuningError", "TuningLog", "choose_tilings"]
