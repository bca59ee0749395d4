"The run of an hour in short: memory and speed are flat, an interruption costs nothing, and what is not flat is noticed."
import signal, subprocess, sys, time
from pathlib import Path
import pytest
from load import COLUMNS, RATES, read, verdict

LOAD = [sys.executable, Path(__file__).with_name('load.py')]

def lines(n=13, **ends):
    "Lines of a steady run, apart from the columns in `ends`, which go evenly from 1 to the given multiple."
    return [{k: 1000*(1+(ends.get(k, 1)-1)*i/(n-1)) for k in COLUMNS} for i in range(n)]

def test_what_is_not_flat_is_noticed():
    assert not verdict(lines()) and not verdict(lines(anon_mb=.5, pairs_per_s=2.))   # less memory and more speed are fine
    assert verdict(lines(anon_mb=1.4, held_mb=1.2)) == ['anon_mb grows from 1217 to 1350', 'held_mb grows from 1108 to 1175']
    for k in RATES: assert verdict(lines(**{k: .8}))[0].startswith(f'{k} falls')
    assert 'run longer' in verdict(lines(6))[0]
    first = lines()
    first[0]['anon_mb'] = 1e6
    assert not verdict(first)   # the first line does not count

def test_small_and_interrupted(tmp_path):
    "The memory within its usual bounds. A few seconds say nothing of the speed, which other work on the machine decides."
    out,small = tmp_path/'load.csv','--rows 5000 --width 32 --every .4 --minutes 9 --slower 1'.split()
    p = subprocess.Popen([*LOAD, *small, '--out', out, '--folder', tmp_path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while p.poll() is None and not (out.exists() and out.read_text().count('\n') > 9): time.sleep(.1)
    p.send_signal(signal.SIGTERM)
    log,_ = p.communicate(timeout=300)
    assert p.returncode == 0 and 'interrupted' in log and log.endswith('flat\n'), log
    assert len(read(out)) >= 9 and [o.name for o in tmp_path.iterdir()] == ['load.csv']   # the table is gone

@pytest.mark.slow
def test_an_hour_at_full_size(tmp_path):
    res = subprocess.run([*LOAD, '--out', tmp_path/'load.csv'], capture_output=True, text=True)
    assert res.returncode == 0, res.stdout+res.stderr
