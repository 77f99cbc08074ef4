import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.parallel import WorkerDied, map_cases

ROOT = Path(__file__).resolve().parents[2]


def _square(n):
    time.sleep(0.02 * (n % 3))
    if n == 4:
        raise ValueError("four")
    return n * n, os.getpid()


def _die_at_three(n):
    if n == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order_and_an_error_takes_the_place_of_its_result(workers):
    out = list(map_cases(_square, list(range(8)), workers=workers, description="squares"))
    assert [n for n, _ in out] == list(range(8))
    assert [r[0] for n, r in out if n != 4] == [n * n for n in range(8) if n != 4]
    assert isinstance(out[4][1], ValueError)
    assert str(out[4][1]) == "four"
    here = {r[1] == os.getpid() for n, r in out if n != 4}
    assert here == {workers < 2}


def test_killed_worker_costs_only_its_own_item():
    out = list(map_cases(_die_at_three, list(range(8)), workers=2))
    assert [r for n, r in out if n != 3] == [0, 1, 2, 4, 5, 6, 7]
    assert isinstance(out[3][1], WorkerDied)
    assert str(out[3][1]) == "its worker process was killed, most likely for lack of memory"


def test_nothing_to_do_gives_nothing():
    assert list(map_cases(_square, [])) == []


def test_plain_lines_where_there_is_no_terminal(capfd):
    list(map_cases(_square, list(range(4)), workers=1, description="work"))
    assert capfd.readouterr().err.splitlines() == ["work: 1/4", "work: 2/4", "work: 3/4", "work: 4/4"]


def test_stopping_early_ends_the_processes():
    results = map_cases(_square, list(range(50)), workers=2)
    pid = next(results)[1][1]
    results.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_interruption_ends_all_processes_without_their_tracebacks(tmp_path):
    module = tmp_path / "slow_work.py"
    module.write_text(
        "import os, pathlib, sys, time\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from core.parallel import map_cases\n"
        "def slow(n):\n"
        f"    pathlib.Path({str(tmp_path)!r}, f'pid-{{os.getpid()}}').touch()\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    import signal\n"  # another test's process may have handed on a blocked or ignored SIGINT
        "    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    try:\n"
        "        list(map_cases(slow, [1, 2, 3], workers=2))\n"
        "    except KeyboardInterrupt:\n"
        "        sys.exit(130)\n"
    )
    process = subprocess.Popen([sys.executable, str(module)], stderr=subprocess.PIPE, text=True, start_new_session=True)
    while len(list(tmp_path.glob("pid-*"))) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    for mark in tmp_path.glob("pid-*"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(mark.name[4:]), 0)
