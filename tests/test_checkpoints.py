"Checkpoints and weights of strangers: no more memory than their file, and regular files only."
import io, json, os, pickle, resource, struct, zipfile
from collections import OrderedDict
from pathlib import Path
import pytest, torch
from helpers import refused, saved
from laso.core import InputError
from laso.features.backbones import create_backbone
from laso.lab.official import load_official, read_weights
from laso.ops.kinds import SetOps, set_ops

class Calls:
    "A pickle that calls this."
    def __init__(self, f, *args): self.call = f,args
    def __reduce__(self): return self.call

def with_pickle(data):
    "A checkpoint of this pickle."
    f = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved({'a': torch.zeros(4)}))) as old, zipfile.ZipFile(f, 'w') as new:
        for o in old.namelist(): new.writestr(o, data if o.endswith('data.pkl') else old.read(o))
    return f.getvalue()

def in_old_format(data):
    "The same in the format of PyTorch 1.0: the fourth pickle of five."
    from torch.serialization import MAGIC_NUMBER, PROTOCOL_VERSION
    before = [pickle.dumps(o, protocol=2) for o in (MAGIC_NUMBER, PROTOCOL_VERSION, {})]
    return b''.join([*before, data, pickle.dumps([], protocol=2)])

def many(what, call, n):
    "A list of something remembered (0), a function (1), and many uses of both."
    return b'\x80\x02](' + what + b'q\x00' + b'c%s\nq\x01' % call + (b'h\x01)Rh\x00b' if what[:1] == b'}' else b'h\x01h\x00\x85R')*n + b'e.'

NUMBERS = b'](' + b''.join(b'J' + struct.pack('<i', i) for i in range(10**4)) + b'e'
PAIRS = b'](' + b''.join(b'J' + struct.pack('<i', i) + b'N\x86' for i in range(10**4)) + b'e'
STATE = b'}(' + b''.join(b'X\x03\x00\x00\x00%03xN' % i for i in range(4000)) + b'u'
PICKLES = dict(
    bytearray=b'\x80\x02c__builtin__\nbytearray\n\x8a\x05\x00(k\xee\x00\x85R.', lists=b'\x80\x02(' + b']'*10**5 + b't.', sets=many(NUMBERS, b'__builtin__\nset', 10**4), copies=many(PAIRS, b'collections\nOrderedDict', 10**4), counters=many(NUMBERS, b'collections\nCounter', 10**4),
    sizes=many(b'(' + b'K\x01'*10**5 + b't', b'torch\nSize', 10**4), states=many(STATE, b'collections\nOrderedDict', 10**4), texts=many(b'X' + struct.pack('<I', 10**6) + b'a'*10**6, b'_codecs\nencode', 10**4),
    place=b'\x80\x02}r\xff\xff\xff\x7f.', long_text=b'\x80\x02X\xff\xff\xff\x7fa.', bytearray8=b'\x80\x05\x96' + struct.pack('<Q', 4*10**9) + b'.', bytes8=b'\x80\x05\x8e' + struct.pack('<Q', 4*10**9) + b'.', state_of_a_function=b'\x80\x02ctorch\nSize\n}b.',
    storage=b'\x80\x02](ctorch._utils\n_rebuild_tensor\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu\x8a\x05\x00(k\xee\x00NtQK\x00K\x01\x85K\x01\x85tRe.')

def limited(file, most):
    "Read with an address space of little more than what is taken."
    held = int(Path('/proc/self/statm').read_text().split()[0])*resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held+most, held+most))
    try: read_weights(file)
    except InputError as e: return 'MemoryError' not in str(e)
    return False

@pytest.mark.skipif(not Path('/proc/self/statm').exists(), reason='needs /proc of Linux')
def test_memory_of_a_pickle(in_clean_process, tmp_path):
    "Everything that a pickle of a few bytes or kilobytes can ask for, in both formats, with 400 MB to take."
    status,log = in_clean_process(all_pickles, tmp_path)
    assert status == 0, log[-2000:]

def all_pickles(path):
    torch.load(io.BytesIO(saved({'a': torch.zeros(3)})), weights_only=True)
    files = []
    for name,data in PICKLES.items():
        for form in with_pickle,in_old_format:
            (f := path/f'{name}-{form.__name__}').write_bytes(form(data))
            files.append(f)
    for f in files:
        pid = os.fork()
        if not pid:
            ok = 3
            try: ok = 0 if limited(f, 4*10**8) else 1
            except BaseException as e: print(f.name, type(e).__name__, str(e)[:300], flush=True)
            os._exit(ok)
        assert os.waitpid(pid, 0)[1] == 0, f.name

@pytest.mark.parametrize('size,stride', [((10**6,), (1,)), ((5,), (1,)), ((2, 2), (3, 1))])
def test_tensors_larger_than_their_storage(tmp_path, size, stride):
    class Odd:
        def __reduce__(self): return torch._utils._rebuild_tensor_v2, (torch.zeros(4)._typed_storage(), 0, size, stride, False, OrderedDict())
    for new in (True, False):
        (tmp_path/'a').write_bytes(saved({'a': Odd()}, _use_new_zipfile_serialization=new))
        refused(lambda: read_weights(tmp_path/'a'), 'tensors larger than their numbers')

def test_what_people_keep_beside_tensors(tmp_path):
    "Settings, a state dictionary with its metadata, views of one storage, parameters, empty tensors."
    whole = torch.arange(6.)
    state = torch.nn.BatchNorm1d(3).state_dict()
    beside = dict(epoch=3, lr=1e-3, name='net', best=None, done=True, shape=torch.Size([2, 3]), type=torch.float16, device=torch.device('cpu'), steps=[1, 2, (3,)], big=2**70, order=OrderedDict(a=1))
    state |= dict(a=whole[:2], b=whole[2:].view(2, 2).T, p=torch.nn.Parameter(torch.ones(2)), none=torch.zeros(0, 3), one=torch.tensor(3.), same=torch.zeros(1).expand(1000), half=torch.ones(2).half(), no=torch.tensor([True]))
    for new in (True, False):
        (tmp_path/'a').write_bytes(saved(dict(state_dict=state, **beside), _use_new_zipfile_serialization=new))
        if 'same' in state: refused(lambda: read_weights(tmp_path/'a'), 'with all their numbers', 'same'); state.pop('same'); (tmp_path/'a').write_bytes(saved(dict(state_dict=state, **beside), _use_new_zipfile_serialization=new))
        got = read_weights(tmp_path/'a')
        assert {*got} == {*state} and all(torch.equal(got[k], state[k]) and got[k].dtype == state[k].dtype for k in state)

def test_no_regular_file(tmp_path):
    "Devices, pipes, folders and links to them are refused at once, as weights, operators and checkpoints."
    os.mkfifo(tmp_path/'pipe')
    (tmp_path/'zero').symlink_to('/dev/zero')
    (tmp_path/'link').symlink_to('pipe')
    set_ops('analytic', 3).save(tmp_path/'ops')
    for o in 'pipe', 'zero', 'link', 'ops':
        refused(lambda: read_weights(tmp_path/o), 'no regular file')
        refused(lambda: create_backbone('test_resnet', weights=tmp_path/o), 'found no file')
        folder = tmp_path/f'of-{o}'
        folder.mkdir()
        (folder/'paperUnionModel').symlink_to(tmp_path/o)
        refused(lambda: load_official(folder), 'found none of them')
    for name in 'operators.json', 'operators.safetensors':
        for o in 'pipe', 'zero':
            set_ops('mixture', 3, h=2).save(folder := tmp_path/f'{name}-{o}')
            (folder/name).unlink()
            (folder/name).symlink_to(tmp_path/o)
            refused(lambda: SetOps.load(folder), f'found no {name}')
    (tmp_path/'good').write_bytes(saved({'a': torch.ones(2)}))
    (tmp_path/'good-link').symlink_to('good')
    assert read_weights(tmp_path/'good-link')['a'].tolist() == [1, 1]

@pytest.mark.parametrize('change', [dict(keep=10**400), dict(keep=-1), dict(keep='x'), dict(keep=1e300), dict(keep=None), dict(knots=0), dict(knots=2**40), dict(knots=2**10), dict(n_dirs=2**40), dict(h=2**40), dict(k=2**40), dict(h=dict(union=2**40)), dict(knots=2.5), dict(keep=dict(union=2., intersection=.5, subtraction=.5))])
def test_numbers_of_operators(tmp_path, change):
    "Refused when they are loaded, not when they are used."
    set_ops('logic', 4, h=3, knots=3).save(tmp_path)
    SetOps.load(tmp_path)
    config = json.loads((tmp_path/'operators.json').read_text())
    del config['digest']
    (tmp_path/'operators.json').write_text(json.dumps(config | change))
    refused(lambda: SetOps.load(tmp_path), 'operators.json and operators.safetensors')
