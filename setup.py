"Read the package's metadata from `settings.ini`, the one place where it stands."
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

cfg = ConfigParser(delimiters=['='])
cfg.read(Path(__file__).with_name('settings.ini'), encoding='utf8')
cfg = cfg['DEFAULT']

setup(name=cfg['lib_name'],
      version=cfg['version'],
      description=cfg['description'],
      keywords=cfg['keywords'].split(),
      author=cfg['author'],
      license='Apache-2.0',
      python_requires=f">={cfg['min_python']}",
      packages=find_packages(include=['laso', 'laso.*']),
      package_data={'laso': ['*.json']},
      install_requires=cfg['requirements'].split(),
      extras_require={'dev': cfg['dev_requirements'].split()},
      entry_points={'console_scripts': cfg['console_scripts'].split(), 'nbdev': ['laso=laso._modidx:d']},
      long_description=Path(__file__).with_name('README.md').read_text(encoding='utf8'),
      long_description_content_type='text/markdown')
