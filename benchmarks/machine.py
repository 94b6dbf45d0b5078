"""What a measurement was taken on: the processor, and how busy others kept it."""

import os
import platform
import time

# As /proc/cpuinfo spells them, on x86 and on ARM.
INSTRUCTION_SETS = (
    "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16",
    "amx_int8", "asimd", "bf16", "sve", "i8mm",
)  # fmt: skip


def processor():
    """One line: name, cores and instruction sets."""
    rows = {}
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                name, _, value = line.partition(":")
                rows.setdefault(name.strip().lower(), value.strip())
    except OSError:  # no Linux
        return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    has = (rows.get("flags") or rows.get("features") or "").split()
    known = " ".join(name for name in INSTRUCTION_SETS if name in has) or "no known instruction set"
    return f"{rows.get('model name', platform.machine())}, {os.cpu_count()} cores, {known}"


class Others:
    """How many cores the other processes of the machine keep busy, from here to `busy`."""

    def __init__(self):
        self._start = self._now()

    def busy(self):
        """The mean since this was made, in cores; None where the system does not say."""
        start, now = self._start, self._now()
        if start is None or now is None:
            return None
        wall, of_all, own = (b - a for a, b in zip(start, now, strict=True))
        return max(of_all - own, 0.0) / wall

    def line(self):
        """The same as a sentence."""
        busy = self.busy()
        if busy is None:
            return "How busy other processes kept the machine is not known here."
        return f"Other processes kept {busy:.2f} of {os.cpu_count()} cores busy meanwhile."

    @staticmethod
    def _now():
        """(wall, CPU seconds of all processes, CPU seconds of this one)."""
        try:
            with open("/proc/stat", encoding="ascii") as file:
                user, nice, system, _, _, irq, softirq, steal = map(
                    int, file.readline().split()[1:9]
                )
        except OSError:  # no Linux
            return None
        ticks = user + nice + system + irq + softirq + steal
        return time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), time.process_time()
