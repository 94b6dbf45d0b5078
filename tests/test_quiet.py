"""What programs leave on the terminal: nothing of TensorFlow's own, everything that went wrong."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from helpers import ROOT
from wsol_tf import quiet

NOISE = (
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795683514.276711    8609 port.cc:153] oneDNN custom operations are on.",
    "W0000 00:00:1795683514.276711    8609 x.cc:1] Allocation of 9 exceeds 10% of free memory.",
    "2026-11-26 08:58:34.276711: I external/local_tsl/port.cc:153] oneDNN custom operations are on",
    "To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow",
    "E0000 00:00:1795683518.198637    8609 cuda_platform.cc:52] failed call to cuInit: INTERNAL: "
    "CUDA error: Failed call to cuInit: UNKNOWN ERROR (303)",
    "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.",
    "Corrupt JPEG data: 3 extraneous bytes before marker 0xd9",
    "INFO:apache_beam.runners.worker.sdk_worker:Control channel established.",
    "INFO:__main__:Python sdk harness starting.",
    "WARNING:root:apitools not found, and bigquery client libraries are not available despite the",
    "WARNING:__main__:No semi_persistent_directory found:  User registered objects may not be",
)
REAL = (
    "F0000 00:00:1795683514.276711    8609 cpu_feature_guard.cc:12] was compiled to use AVX",
    "E0000 00:00:1795683514.276711    8609 cuda_dnn.cc:9] Could not create cudnn handle",
    "E0000 00:00:1795683518.198637    8609 cuda_platform.cc:52] failed call to cuInit: "
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: system has unsupported display driver (803)",
    "W0000 00:00:1795683518.1    86 bfc_allocator.cc:5] Allocator (GPU_0_bfc) ran out of memory",
    "2026-11-26 08:58:34.276711: E external/local_tsl/port.cc:153] Failed",
    "INFO: Something else.",
    "INFO:wsol_tf:Something of ours.",
    "WARNING:apache_beam.runners.worker.sdk_worker:No more memory.",
    "ERROR:apache_beam.runners.worker.sdk_worker:Error processing instruction 3.",
    "Fatal Python error: Segmentation fault",
    "terminate called after throwing an instance of 'std::bad_alloc'",
    "",
    "    at an indented line",
)


def started(code, **options):
    return subprocess.Popen(
        [sys.executable, "-c", f"import os, sys\nfrom wsol_tf import quiet\nquiet.hush()\n{code}"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def outcome(code, **options):
    process = started(code, **options)
    said, errors = process.communicate(timeout=60)
    return process.returncode, said.decode(), errors.decode()


@pytest.mark.parametrize("line", NOISE)
def test_what_says_nothing_to_a_user_is_known(line):
    assert quiet.KNOWN.match(line.encode())


@pytest.mark.parametrize("line", REAL)
def test_what_went_wrong_is_not_known(line):
    assert not quiet.KNOWN.match(line.encode())


def test_known_lines_are_left_out_and_all_others_come_in_their_order():
    lines = [line for pair in zip(NOISE, REAL, strict=False) for line in pair] + ["no end"]
    code = f"os.write(2, {chr(10).join(lines).encode()!r})"
    kept = "\n".join([*REAL[: len(NOISE)], "no end"])
    assert outcome(code) == (0, "", kept)


def test_a_line_may_come_in_pieces_and_be_no_text():
    code = (
        "import time\n"
        "known = b'INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\\n'\n"
        "for piece in (known[:9], known[9:] + b'\\xff', b'a\\n'):\n"
        "    os.write(2, piece); time.sleep(0.05)"
    )
    process = started(code)
    assert process.communicate(timeout=60)[1] == b"\xffa\n"


def test_what_a_fatal_error_says_gets_through():
    code = "os.write(2, b'F0000 00:00:1.1 1 x.cc:1] Check failed: it is broken\\n'); os.abort()"
    status, _, errors = outcome(code)
    assert status == -signal.SIGABRT
    assert errors == "F0000 00:00:1.1 1 x.cc:1] Check failed: it is broken\n"


def test_what_comes_before_a_kill_gets_through():
    code = "os.write(2, b'terminate called\\n'); os.kill(os.getpid(), 9)"
    assert outcome(code)[::2] == (-signal.SIGKILL, "terminate called\n")


def test_tracebacks_and_long_lines_get_through():
    status, _, errors = outcome("os.write(2, b'x' * 300_000 + b'\\n')\nraise KeyError('bug')")
    assert status == 1
    # Python's own words may come first, and in the middle of so long a line.
    assert errors.count("x") >= 300_000
    assert "Traceback (most recent call last):\n" in errors and "KeyError: 'bug'\n" in errors


def test_processes_that_a_program_starts_are_heard_as_well():
    write = f"import os; os.write(2, {NOISE[0].encode()!r} + bytes([10]) + b'real')"
    code = f"import subprocess\nsubprocess.run([sys.executable, '-c', {write!r}])"
    assert outcome(code) == (0, "", "real")


def test_python_writes_to_standard_error_itself():
    # In the order of what is printed, and even where a line looks like one of TensorFlow's.
    assert outcome(f"print({NOISE[0]!r}, file=sys.stderr)") == (0, "", NOISE[0] + "\n")


def test_a_closed_standard_error_is_no_reason_to_fail():
    process = subprocess.run(
        [sys.executable, "-c", "from wsol_tf import quiet; quiet.hush(); print('ran')"],
        cwd=ROOT, stdout=subprocess.PIPE, preexec_fn=lambda: os.close(2), timeout=60,
    )  # fmt: skip
    assert process.stdout == b"ran\n" and process.returncode == 0


def test_ctrl_c_ends_the_program_and_the_reader_with_it():
    # A shell starts what runs in its background with SIGINT ignored, which is inherited. Short
    # sleeps: a signal that comes just before a long one does not end it.
    code = (
        "import signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "try:\n    os.write(1, b'on\\n')\n    while True:\n        time.sleep(0.1)\n"
    )
    code += "except BaseException:\n    os.write(2, b'ended\\n')"
    process = started(code, start_new_session=True)
    assert process.stdout.readline() == b"on\n"
    os.killpg(process.pid, signal.SIGINT)
    began = time.monotonic()
    assert process.communicate(timeout=60)[1] == b"ended\n"  # at the reader's end as well
    assert time.monotonic() - began < 60 and process.returncode == 0


def test_a_program_says_nothing_of_tensorflow_unless_it_is_asked_to(tmp_path):
    # --verbosity=0 in the same way shows what there was to leave out.
    code = (
        "from wsol_tf import importing, programs\n"
        "def run(values):\n"
        "    importing.import_keras()\n"
        "    import tensorflow\n"
        "    print(tensorflow.zeros(3).numpy().sum())\n"
        "programs.main(lambda: None, run)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    said = []
    for flags in ([], ["--verbosity=0"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *flags],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "0.0\n"), done.stderr
        said.append(done.stderr)
    assert said[0] == ""
    assert re.search(r"port\.cc:\d+\] oneDNN", said[1])
