"""What an app developer drops into a project: libraries, weights and build files for MLC's apps.

Read in this order: ``model.py`` (one model of a package, from its artifact), ``library.py`` (all
models' objects in one static library), ``configs.py`` (MLC's JSON files), ``packs.py`` (weights in
pieces that the stores take), then the platforms, each a function from models to a ``Content``
(``content.py``): ``android.py``, ``ios.py`` and ``web.py`` (with ``web_config.py`` and
``web_llm.py``), with the files of ``templates/``. ``package.py`` puts them together and
``folder.py`` writes them.
"""
