"Set expressions: the laws of set algebra hold for label sets, and texts from anywhere are harmless."
import random
import torch
from hypothesis import given, strategies as st
from laso.core import InputError
from laso.ops.evaluation import Expression, expression_labels

LAWS = [('x - (y & z)', '(x - y) | (x - z)'), ('x - (y | z)', '(x - y) & (x - z)'), ('x & (y | z)', '(x & y) | (x & z)'),
        ('x | (y & z)', '(x | y) & (x | z)'), ('(x - y) | (y - x)', '(x | y) - (x & y)'), ('x & (y - y | x)', 'x - (y - y)'),
        ('x - (x - y)', 'x & y'), ('(x - y) - z', 'x - (y | z)'), ('x | (x & y)', 'x & (x | y)')]
labels = st.lists(st.lists(st.booleans(), min_size=15, max_size=15), min_size=1, max_size=20)

@given(labels, st.sampled_from(LAWS))
def test_laws(rows, law):
    l = torch.tensor(rows).float().reshape(-1, 3, 5)
    def value(text):
        e = Expression(text)
        return expression_labels(e, l[:,['xyz'.index(n) for n in e.names]])
    assert torch.equal(*map(value, law))

@given(st.recursive(st.sampled_from('abc'), lambda o: st.tuples(o, st.sampled_from('|&-'), o).map(' '.join).map('({})'.format),
                    max_leaves=12), st.randoms(use_true_random=False))
def test_same_as_pythons_sets(text, rng):
    names = set(text) & set('abc')
    values = {n: {i for i in range(6) if rng.random() < .5} for n in 'abc'}
    if '(' not in text: return
    e = Expression(text)
    assert set(e.names) == names and e(**{n: values[n] for n in names}) == eval(text, {}, dict(values))

@given(st.text(max_size=40))
def test_any_text_is_an_expression_or_refused(text):
    try: Expression(text)
    except InputError as e: assert str(e).startswith('expected an expression')
