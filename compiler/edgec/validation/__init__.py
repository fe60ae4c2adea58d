"""Pydantic models checked against YAML documents, with errors that a person can act on.

Read ``types.py`` (what models are made of), then ``validate.py`` (document to model),
``messages.py`` (pydantic's errors in plain English), ``fields.py`` (looking things up in a model)
and ``editorschema.py`` (the JSON Schema that editors complete from).
"""
