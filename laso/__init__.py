"""A picture often shows several things. `laso` trains small networks that take the *features* of two pictures and return
the features of an imagined third one, whose label set is the union, the intersection or the difference of the two.
They are trained on classes with many pictures and work on classes that they never saw, so a handful of examples of new
classes can be turned into many. The method is that of
[LaSO (Alfassy et al., CVPR 2019)](https://arxiv.org/abs/1902.09811).

Modules:

- `laso.adapt`: Operators that start from the best blend, are judged by classifiers that have not seen their pictures, and end with logic
- `laso.backbones`: Networks that turn pictures into feature vectors, and their fine-tuning on the base classes
- `laso.baselines`: What an operator has to beat: heads, prototypes, propagated labels and features made without any learned operator
- `laso.bench`: From pictures to a verdict: features, operators, three evaluations, tables and pictures
- `laso.blends`: Mixtures of what two pictures have: a family of operators without learned parameters, and one that starts from its best member
- `laso.checkpoints`: A training that was stopped goes on, and ends with the same bits
- `laso.cli`: The command `laso`: the main job and each of its stages
- `laso.core`: The label algebra, the words that all other pages use, and the few helpers they share
- `laso.data`: Read a folder of multi-label pictures, check it, split its classes and make `DataLoaders`
- `laso.decisions`: Scores that need a threshold, F1 and the accuracy of label sets, and the precision–recall curve of each class
- `laso.episodes`: The ten one-shot and ten five-shot support sets that were released with the paper
- `laso.evaluation`: Are the outputs of the operators called by the right labels, and do they lie near pictures with the right labels?
- `laso.explore`: A widget for JupyterLab and Voilà: choose pictures and an expression, and see what the operators make of them
- `laso.expressions`: What do x ∖ (y ∩ z) and other expressions of several operators return?
- `laso.features`: Feature vectors of all pictures, computed once and kept on disk
- `laso.fewrates`: All heads together beside one after the other, and where the time goes
- `laso.fewshot`: What are synthesised features worth when a new class has one or five examples?
- `laso.files`: Pictures, text, JSON, numbers and archives from anywhere, read without running code and within stated limits
- `laso.gallery`: For pairs of images, the real images nearest to their union, intersection and subtraction
- `laso.heads`: Many regularised linear classifiers at once, each at its exact optimum
- `laso.joint`: The backbone trained together with the operators, on pairs of pictures
- `laso.labels`: Rows with multi-hot labels and their two splits: training and validation rows, base and novel classes
- `laso.layouts`: COCO, VOC, CelebA and fastai's own copies, read where they lie, and one name for all data
- `laso.learner`: A fastai `Learner` for set operators: pairs of feature vectors in, three operators out
- `laso.logic`: Operators that know which directions of the features mean something, and do logic there
- `laso.losses`: What the operators' outputs should be called by a classifier, and what they should look like
- `laso.metrics`: Average precision for many classifiers at once, and the intervals that go with every mean
- `laso.mlp`: The perceptron that the paper's few-shot experiments train, many of them at once
- `laso.official`: Read the weights that the authors of the paper released, into the modules of this package
- `laso.operators`: Networks that take the features of two images and return the features of a third one: the union, intersection or subtraction of what they show
- `laso.pairs`: Drawing pairs of images so that every class gets its share, and batches of them straight out of a feature table
- `laso.paper`: What a benchmark measured, in the form of the paper's three tables and beside the published numbers
- `laso.perf`: What this machine does, against its limits
- `laso.plots`: Figures of the results file and of a training
- `laso.rates`: Training, retrieval and extraction beside the plain way and beside the limits of the machine
- `laso.recipes`: The paper's way of training, presets, an ablation of the loss terms, and logs of experiments
- `laso.report`: One page that can be sent to others, and two runs side by side
- `laso.retrieval`: Do the images nearest to an operator's output show the label set that it should have?
- `laso.scale`: Time and memory against the size of the data, a table larger than memory, and approximate search
- `laso.scenes`: Multi-label pictures composed from emoji graphics: a data set that needs no download and is the same for everyone
- `laso.stack`: Prototypes and heads that learn from what an operator makes of pictures that look alike, and ensembles of methods
- `laso.statistics`: Intervals, tests and sample sizes for paired comparisons of methods
- `laso.stopping`: Mistakes, interruptions and what the system refuses: one sentence and an exit status
- `laso.study`: Settings chosen on classes held out as if they were novel, then one report on those that are
- `laso.tagger`: A few pictures with tags make a tagger; it can be taught more, written to one file and given to others
- `laso.taghead`: From a few feature vectors with tags to calibrated probabilities and a threshold for each tag, as a scikit-learn estimator"""

from importlib.metadata import PackageNotFoundError as _NotInstalled, version as _version

try: __version__ = _version('laso')
except _NotInstalled: __version__ = '0+unknown'
