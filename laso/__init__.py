"""You have thousands of photographs and a handful of examples for each tag. `laso` learns the tags, finds them in all other photographs, and says
nothing where it sees none of them. What it gets wrong is put right by looking. It runs on a laptop without a GPU, and your photographs
are never changed.

Modules:

- `laso.bench.compare`: Scores of two runs or of single stages side by side, with paired differences
- `laso.bench.numbers`: The numbers of a run as one table, and its tables as LaTeX
- `laso.bench.output`: Which files in it are ours, so that nothing of anyone else's is replaced or removed
- `laso.bench.restore`: A backbone with its choice of blocks and its operators, read from a run, or from a file that may come from anyone
- `laso.bench.results`: What a run leaves behind: a file of numbers, tables, one page that can be sent to others
- `laso.bench.run`: From images to a verdict: features, operators, three evaluations, tables and figures
- `laso.bench.seeds`: The same benchmark with other random numbers, and one table of the means
- `laso.bench.stages`: `laso bench`, each of its stages as a command of its own, and `laso compare`
- `laso.cli`: The command `laso`: where its commands come together, and how they end
- `laso.core`: The words that all other pages use, the label algebra, and how a mistake is told
- `laso.data.archives`: What would be unpacked is looked at first
- `laso.data.coco`: Annotations of COCO, or of tools that write its layout, read where they lie
- `laso.data.crop`: Scale images and cut out their middle, as the paper does, instead of squishing the whole
- `laso.data.decode`: Images and numbers from anywhere, read without running code and within stated limits
- `laso.data.files`: Text and JSON from anywhere, and the names of files, within stated limits
- `laso.data.folder`: Read a folder of multi-label images, check it and split its classes
- `laso.data.labels`: Rows with multi-hot labels and their two splits: training and validation rows, base and novel classes
- `laso.data.layouts`: VOC, CelebA and fastai's own copies, read where they lie, and one name for all data
- `laso.data.scenes`: Multi-label images composed from emoji graphics: a data set that needs no download and is the same for everyone
- `laso.data.tables`: Which image shows what, as text: the columns of a table, and what stands between labels
- `laso.evaluate.coverage`: How often a 95 % interval of a few-shot difference holds what is true, where that is known
- `laso.evaluate.metrics`: Average precision for many classifiers at once, and the scores of decisions at a threshold
- `laso.evaluate.plots`: Figures of a benchmark's results and of a training
- `laso.evaluate.retrieval`: Do the images nearest to an operator's output show the label set that it should have?
- `laso.evaluate.statistics`: Intervals, tests and sample sizes for paired comparisons of methods
- `laso.explore`: `laso explore RUN` opens a widget in JupyterLab: choose images by their thumbnails and an expression, see what operators make of them
- `laso.features.backbones`: Networks that turn images into feature vectors
- `laso.features.concepts`: What is where in an image: a classifier applied to each token
- `laso.features.dictionaries`: Concepts that are learned from images, where no classifier fits them
- `laso.features.extract`: Feature vectors of all images, computed once and kept on disk
- `laso.features.heads`: Many regularised linear classifiers at once, each at its exact optimum
- `laso.features.maps`: Where in an image a concept lies
- `laso.features.table`: A feature vector for each image, in named blocks, with labels and splits
- `laso.features.text_heads`: A token head made of any words, for networks that were trained with texts
- `laso.features.vectors`: A file of vectors and a table of labels make a table of features
- `laso.features.vocabulary`: Which concepts a word speaks of
- `laso.fewshot.baselines`: What an operator has to beat: heads, prototypes, propagated labels and features made without any learned operator
- `laso.fewshot.ensemble`: Prototypes and heads that learn from what an operator makes of images that look alike, and ensembles of methods
- `laso.fewshot.methods`: What are synthesised features worth when a new class has one or five examples?
- `laso.fewshot.names`: A class that has the name of a concept needs fewer examples
- `laso.fewshot.own_methods`: `--method FILE.py:FUNCTION`: a function of your own stands in the tables beside all others
- `laso.fewshot.representation`: Which blocks of features suit a data set: decided on base classes, with pooled features ahead where that is in doubt
- `laso.fewshot.support`: A few examples of every novel class, and all that a method may use to recognise the class
- `laso.fewshot.tuning`: Settings of every method, chosen for each number of shots on the same splits with the same number of tries
- `laso.fewshot.views`: Changed and mixed images of a support set, as features
- `laso.fewshot.written`: The settings of methods and ensembles in a file, which can be read elsewhere
- `laso.interrupts`: Mistakes, interruptions and what the system refuses: one sentence and an exit status
- `laso.lab.ablation`: What each term of the loss is worth, and what more images are worth to operators
- `laso.lab.blocks`: Are the blocks of features that were chosen on some classes as good as the best block on others?
- `laso.lab.episodes`: The ten one-shot and ten five-shot support sets that were released with the paper
- `laso.lab.leaderboard`: A few-shot benchmark that others can enter: one protocol, an entry in a file, a check that anyone can repeat
- `laso.lab.mlp`: The perceptron that the paper's few-shot experiments train, many of them at once
- `laso.lab.official`: Read the weights that the authors of the paper released, into the modules of this package
- `laso.lab.paper`: What was measured, in the form of the paper's three tables, and the published numbers beside what they belong to
- `laso.lab.paper_command`: `laso paper` runs the paper's three evaluations as its authors ran them, and writes their tables
- `laso.lab.perf`: What this machine does, against its limits
- `laso.lab.protocol`: The paper's three evaluations as its authors ran them, from images to tables
- `laso.lab.rivals`: The same jobs with what one would pick instead: scikit-learn, easyfsl, faiss, timm and the paper's training loop
- `laso.lab.speed_fewshot`: All heads together, where their time goes, and what more support sets cost
- `laso.lab.speed_jobs`: Training, search and extraction beside the plain way and beside the limits of the machine
- `laso.lab.speed_size`: Time and memory against the size of the data, a table larger than memory, and approximate search
- `laso.lab.study`: Settings chosen on classes held out as if they were novel, then one report on those that are
- `laso.lab.study_tables`: What a study found, for a terminal and for the pages of this documentation
- `laso.lab.tags`: Taggers beside other ways to choose probabilities, on photographs of which half show none of the tags
- `laso.ops.blends`: Which fixed mixture of two images suits the features, found out on classes that are held back
- `laso.ops.evaluation`: Are the outputs of the operators called by the right labels, and do they lie near images with the right labels?
- `laso.ops.gallery`: For pairs of images, the real images nearest to their union, intersection and subtraction
- `laso.ops.kinds`: The three operators together: made, adapted, saved and loaded by the name of their kind
- `laso.ops.logic`: From mixtures of two feature vectors to the default operators, which do logic in directions that mean something
- `laso.ops.networks`: Networks that take the features of two images and return the features of a third one: their union, intersection or subtraction
- `laso.ops.search`: Find images by an expression of tags and concepts, such as `dog & grass - person`
- `laso.ops.words`: What features and the results of operators say, in words
- `laso.options`: What the commands share: their options, and the program that they belong to
- `laso.own`: `FILE.py:FUNCTION` on the command line: found, looked at before anything long begins, and run
- `laso.owned`: A file gives way only to who wrote it: journals, and files that laso knows as its own
- `laso.products`: As exact as any in 32 bits, and twice as fast on some processors
- `laso.progress`: What takes long says what it does and how long it still takes, on a terminal and in a log
- `laso.store`: Files that are whole or absent, a cache, and names for content
- `laso.tag.backgrounds`: A few photographs of other things, so that a tagger can say no
- `laso.tag.commands`: `laso teach` learns tags from a few images of each, `laso tag` names what images show, `laso review` shows it for correction
- `laso.tag.exchange`: Tags in the files of programs for photographs and for labelling: XMP sidecars, Label Studio, FiftyOne
- `laso.tag.fitted`: What a head for tags has learned, as a few arrays, and what it says of new features
- `laso.tag.head`: From a few feature vectors with tags to calibrated probabilities, as a scikit-learn estimator
- `laso.tag.images`: Photographs from a folder, a list or a DataLoader, with the tags that they show
- `laso.tag.left_out`: Every example is scored by a classifier that has not seen it: what calibration, unions of examples and other features are worth
- `laso.tag.outputs`: Images are tagged in batches that are kept, and the tags go into tables, sorted folders and a page
- `laso.tag.review`: Photographs with the tags they got, the least certain first, on one page or in a notebook: tick what is right, cross out what is wrong
- `laso.tag.start`: A network, features that suit the tags, what their names say, and operators that need no base classes
- `laso.tag.tagger`: A few images with tags make a tagger; it can be taught more, written to one file and given to others
- `laso.train.callbacks`: Logs of a training, its checkpoints, and its random numbers: what was stopped ends with the same bits
- `laso.train.depthwise`: Gradients of depthwise filters in strips, several times as fast on a processor
- `laso.train.end_to_end`: The backbone trained together with the operators, on pairs of images
- `laso.train.finetune`: Phase 1: a backbone is trained on the base classes with a linear head
- `laso.train.learner`: Pairs of feature vectors in, three operators out: batches, scores, schedules and a fastai `Learner`
- `laso.train.losses`: What the operators' outputs should be called by a classifier, and what they should look like
- `laso.train.recipes`: One call trains operators of any kind on the base classes, by the recipe of that kind"""

from importlib.metadata import PackageNotFoundError as _NotInstalled, version as _version

try: __version__ = _version('laso')
except _NotInstalled: __version__ = '0+unknown'
