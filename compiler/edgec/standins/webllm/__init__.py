"""Artifacts for browsers in the real WebLLM, in a real browser without a window.

An artifact is served on this machine alone, the published package ``@mlc-ai/web-llm`` loads it into
Chromium, and what is asked of it goes through WebLLM's own functions. To read: ``session`` is what
callers use, ``server`` serves, ``browser`` talks to ``driver.mjs``, which drives the browser, and
``page/`` is the page that it opens. Text, token ids and messages come back, logits don't: for those
there are the stand-ins ``dawn`` and ``wgpu``.
"""

from edgec.standins.webllm.answer import Answer
from edgec.standins.webllm.session import Session, ask, greedy

__all__ = ["Answer", "Session", "ask", "greedy"]
