"Read the package's metadata from `settings.ini`, the one place where it stands."
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

here = Path(__file__).parent
ini = ConfigParser(delimiters=['='], interpolation=None)
ini.read(here/'settings.ini', encoding='utf8')
cfg = ini['DEFAULT']
extras = [k.removesuffix('_requirements') for k in cfg if k.endswith('_requirements')]

setup(name=cfg['lib_name'],
      version=cfg['version'],
      description=cfg['description'],
      keywords=cfg['keywords'].split(),
      author=cfg['author'],
      license=cfg['license'],
      classifiers=[f'Programming Language :: Python :: {v}' for v in cfg['pythons'].split()],
      packages=find_packages(include=['laso', 'laso.*']),
      package_data={'laso': ['laso_episodes.json', 'py.typed'], 'laso.tag': ['review.html', 'background-images/*.jpg']},
      install_requires=cfg['requirements'].split(),
      extras_require={k: cfg[f'{k}_requirements'].split() for k in extras},
      entry_points={'console_scripts': cfg['console_scripts'].split(), 'nbdev': ['laso = laso._modidx:d']},
      long_description=(here/'README.md').read_text(encoding='utf8'),
      long_description_content_type='text/markdown')
