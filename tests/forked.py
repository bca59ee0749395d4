"The command in copies of one process that has imported everything, so that a run takes a second or two and can be stopped at will."
import copy, json, os, re, select, shutil, signal, subprocess, sys, time
from pathlib import Path
import numpy as np, pytest, timm, torch
from PIL import Image
from safetensors.torch import save_file

needs_fork = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork and signals')
ONE_THREAD = dict(OMP_NUM_THREADS='1', MKL_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='', MPLBACKEND='agg')
OUT = dict(bench='results.json', extract='views.safetensors', train='operators.json', teach='my.tagger')   # written last

SMALL = """
import laso.cli
from matplotlib.figure import Figure
from laso.bench import output, run
from laso.evaluate import plots
from laso.features import extract
from laso.ops import blends
from laso.tag import start
from laso.train import callbacks, recipes
# chunks and checkpoints as many as in a long run; few pairs, few scenes for `teach`; a small gallery, other figures stay empty
extract.CHUNK,callbacks.EVERY,start.scenes_ops.__defaults__ = 16,.1,(150, 512)
blends.blend_scores.__kwdefaults__['n_pairs'] = 100
plots.save_figure.__kwdefaults__['dpi'] = 20
write = output.write_figure
def write_one(make, path): write(make if path.stem == 'gallery' else lambda: Figure((1, 1)), path)
output.write_figure = run.write_figure = write_one
recipes.FEWEST = 384
"""
DRAWN = "output.write_figure = run.write_figure = write\n"   # before a command: all figures as they are
SERVER = SMALL+"""
import faulthandler, json, os, signal, sys
import matplotlib.pyplot
import laso.evaluate.plots, laso.lab.paper   # what a command would import when it needs it
def work(job):
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for fd in 1, 2: os.dup2(os.open(job['log'], os.O_WRONLY|os.O_CREAT|os.O_APPEND), fd)
    os.environ.update(job['env'])
    os.chdir(job['cwd'])
    sys.argv = ['laso', *job['args']]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faulthandler.dump_traceback_later(400, exit=True)   # a run that hangs says where
    exec(job['before'], globals())
    try: laso.cli.main()
    except SystemExit as e: return e.code or 0
    except BaseException:
        import traceback
        traceback.print_exc()
        return 1

def serve(jobs, said):
    for line in jobs:
        job = json.loads(line)
        pid = os.fork()
        if not pid:
            if 'pipes' in job: serve(open(job['pipes'][0]), open(job['pipes'][1], 'w'))
            status = 0 if 'pipes' in job else work(job)
            sys.stdout.flush(); sys.stderr.flush()
            os._exit(status)
        print(pid, file=said, flush=True)
        if 'pipes' not in job: print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=said, flush=True)
"""

def serve_pipes(*pipes):
    "What a server does, as a copy of a process that has imported the big libraries."
    jobs,said = open(pipes[0]),open(pipes[1], 'w')   # first, so that nobody waits for one who fails to import
    exec(SERVER, here := dict(__name__='server'))
    here['serve'](jobs, said)

def connect(pipes):
    "The ends of two pipes, once the other side has opened them too."
    return open(pipes[0], 'w'),open(pipes[1])

class Server:
    "One command at a time; `run` waits for its end, `start` and `end` leave room for what may happen in between."
    def __init__(self, folder, log='log.txt', process=None):
        "`process` makes it a copy of one that has imported the big libraries; without, it is a new interpreter."
        self.folder,self.log = Path(folder),Path(folder)/log
        pipes = self._pipes(log)
        if process: p = process(serve_pipes, *pipes)
        else:
            code = f'import sys; jobs,said = open(sys.argv[1]),open(sys.argv[2], "w")\n{SERVER}\nserve(jobs, said)'
            p = subprocess.Popen([sys.executable, '-c', code, *pipes], env=dict(os.environ, **ONE_THREAD))
        self.jobs,self.said = connect(pipes)
        self.wait = p.join if process else p.wait

    def _pipes(self, log):
        pipes = [str(self.folder/f'{log}.{o}') for o in ('jobs', 'said')]
        for o in pipes: os.mkfifo(o)
        return pipes

    def twin(self, log):
        "Another one, at once: a copy of the process that has imported everything."
        other = copy.copy(self)
        other.log,other.wait = self.folder/log,lambda: None
        pipes = self._pipes(log)
        print(json.dumps(dict(pipes=pipes)), file=self.jobs, flush=True)
        self.said.readline()
        other.jobs,other.said = connect(pipes)
        return other

    def start(self, *args, cache, before='', **env):
        self.log.unlink(missing_ok=True)
        job = dict(args=list(map(str, args)), log=str(self.log), cwd=str(self.folder), before=before,
                   env=dict(env, LASO_CACHE=str(cache)))
        print(json.dumps(job), file=self.jobs, flush=True)
        self.pid,self.began = int(self.said.readline()),time.monotonic()
        return self.pid

    def end(self):
        "Exit status, what was said, seconds."
        status = int(self.said.readline())
        return status,self.log.read_text(encoding='utf8') if self.log.exists() else '',time.monotonic()-self.began

    def run(self, *args, **kwargs):
        self.start(*args, **kwargs)
        return self.end()

    def stop(self, after, sig=signal.SIGKILL):
        "Send `sig` so many seconds after the start, unless the end came first."
        if select.select([self.said], [], [], max(0, self.began+after-time.monotonic()))[0]: return   # it has ended
        try: os.kill(self.pid, sig)
        except ProcessLookupError: pass

    def close(self):
        self.jobs.close()
        self.wait()

NAMES = dict(red=(220, 30, 30), green=(30, 200, 30), blue=(40, 60, 230), yellow=(230, 220, 40), cyan=(40, 220, 220),
             pink=(240, 120, 200))

def draw(folder, n_train=60, n_valid=30):
    "Pictures of coloured squares as a data set, and some of them sorted into folders for `laso teach`."
    rng,rows = np.random.default_rng(0),['fname,labels,is_valid']
    (folder/'data/images').mkdir(parents=True)
    for i in range(n_train+n_valid):
        im,shown = rng.integers(60, 90, (32, 32, 3), dtype=np.uint8),rng.permutation(len(NAMES))[:rng.integers(1, 4)]
        labels = [list(NAMES)[s] for s in sorted(shown)]
        for o,q in zip(labels, rng.permutation(4)): im[q//2*16:q//2*16+16, q%2*16:q%2*16+16] = NAMES[o]
        Image.fromarray(im).save(folder/f'data/images/{i:03}.png')
        rows.append(f"{i:03}.png,{' '.join(labels)},{i >= n_train}")
        for o in labels*(i < 12):
            (folder/'taught'/o).mkdir(parents=True, exist_ok=True)
            shutil.copy(folder/f'data/images/{i:03}.png', folder/'taught'/o)
    (folder/'data/labels.csv').write_text('\n'.join(rows)+'\n')
    (folder/'data/novel.txt').write_text('cyan\npink\n')
    torch.manual_seed(0)
    save_file(timm.create_model('test_efficientnet', num_classes=0).state_dict(), folder/'weights.safetensors')

def network(world): return ['--weights', world/'weights.safetensors', '--backbone', 'test_efficientnet', '--size', 32]

COMMANDS = dict(
    bench=lambda w,seed: ['bench', '--data', w/'data', *network(w), '--episodes', 2, '--epochs', 2, '--ops-epochs', 2,
                          '--n-pairs', 20, '--end-to-end', 1, '--seed', seed],
    extract=lambda w,seed: ['extract', '--data', w/'data', *network(w), '--episodes', 2, '--epochs', 3, '--seed', seed],
    train=lambda w,seed: ['train', w/'extracted', '--ops-epochs', 3, '--seed', seed],
    teach=lambda w,seed: ['teach', w/'taught', *network(w)])

def files(folder):
    "Every file below a folder, but for what a killed process left and the next one takes away."
    return {str(p.relative_to(folder)): p for p in sorted(folder.rglob('*')) if p.is_file() and '.laso-' not in str(p)}

def content(p):
    "What a file says, without what may differ between two runs: how long it took, how it was called, the memory."
    if p.name == 'results.json':
        return {k: v for k,v in json.loads(p.read_text()).items() if k not in ('timings', 'command', 'peak_memory_mb')}
    if p.name == 'laso-files.json': return sorted(json.loads(p.read_text())['files'])   # digests of files with timings
    if p.name == 'history.csv': return [row.rpartition(',')[0] for row in p.read_text().splitlines()]
    if p.name == 'report.html': return re.sub(r'<h2>How.*?</pre>|<h2>Seconds.*?</table>', '', p.read_text(), flags=re.S)
    return p.read_bytes()

class Reference:
    "A command undisturbed: what it writes, its cache, its seconds; and another run's output, which it will take the place of."
    def __init__(self, world, stage):
        self.stage,self.world,self.home = stage,world,world/'reference'/stage

    def make(self, server):
        "Run the command; any process can `read` it afterwards."
        world,home = self.world,self.home
        if self.stage == 'train': server.run(*COMMANDS['extract'](world, 0), '--out', world/'extracted', cache=world/'any')
        for name,seed in (('former', 1), ('want', 0)):
            shutil.rmtree(home/'cache', ignore_errors=True)
            status,said,seconds = server.run(*self.args(home/name, seed), cache=home/'cache')
            assert status == 0, said
        (home/'seconds.txt').write_text(str(seconds))

    def read(self):
        self.seconds = float((self.home/'seconds.txt').read_text())
        self.want,self.former,self.cache = (files(self.home/o) for o in ('want', 'former', 'cache'))
        assert OUT[self.stage] in self.want
        assert not [o for o in self.cache if 'checkpoint' in o or '.part' in o], 'an undisturbed run tidies up'
        return self

    def args(self, out, seed=0):
        return [*COMMANDS[self.stage](self.world, seed), '--out', out/'my.tagger' if self.stage == 'teach' else out]

    def check(self, cache, out):
        "Nothing is half-written, nothing is stale; returns what is finished."
        for name,p in files(cache).items():
            if name in self.cache: assert p.read_bytes() == self.cache[name].read_bytes(), name
            elif '.part/' in name:
                a,b = map(int, re.findall(r'(\d+)-(\d+)-\w+\.npy', name)[0])
                of = name.partition('.part/')[0]
                whole = np.load(next(o for n,o in self.cache.items() if n.startswith(of) and n.endswith('.npy')))
                np.testing.assert_array_equal(np.load(p), whole[a:b])
            else:
                assert 'checkpoint' in name, f'{name} is not in the cache of an undisturbed run'
                assert torch.load(p, weights_only=True)['at']
        found = files(out)
        for name,p in found.items(): assert p.read_bytes(), f'{name} is empty'
        if OUT[self.stage] in found:
            same = lambda run: found.keys() == run.keys() and all(content(p) == content(run[k]) for k,p in found.items())
            assert same(self.former) or same(self.want), 'files of two runs are mixed'
        return {p: (p.stat().st_ino, p.stat().st_mtime_ns) for n,p in files(cache).items() if n in self.cache}

    def check_end(self, cache, out, finished):
        got = files(out)
        assert [*got] == [*self.want]
        assert [*files(cache)] == [*self.cache]
        for k,p in got.items(): assert content(p) == content(self.want[k]), k
        self.check(cache, out)
        for p,was in finished.items(): assert (p.stat().st_ino, p.stat().st_mtime_ns) == was, f'{p.name} was made again'

def one_sentence(said, *parts):
    "The last line, and the only one of its kind."
    lines = said.strip().splitlines()
    assert 'Traceback' not in said and [l for l in lines if l.startswith('laso: ')] == lines[-1:], said
    for p in parts: assert p in lines[-1], (p, lines[-1])
