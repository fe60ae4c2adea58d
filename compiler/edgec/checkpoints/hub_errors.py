"""What went wrong between us and the hub, in the user's words."""

from __future__ import annotations

import errno

from edgec.errors import CheckpointError

# What was wrong and the remedy, by the name of the client library's exception class.
_CLASSES = {
    "GatedRepoError": (
        "the model's authors restrict access to it",
        "accept their terms at {endpoint}/{repository} and set HF_TOKEN to a token of that account",
    ),
    "RepositoryNotFoundError": (
        "the hub has no such model, or it is private",
        "check the name; for a private model set HF_TOKEN",
    ),
    "RevisionNotFoundError": (
        "the model has no revision {revision}",
        "name one of its branches, tags or commits",
    ),
    "DisabledRepoError": ("the hub has disabled access to this model", "use another model"),
    "LocalEntryNotFoundError": (
        "the hub at {endpoint} can't be reached and the model is not in the local cache",
        "check the network and its proxy, or give a folder that holds the model",
    ),
}
_OFFLINE = (
    "the model is not in the local cache and HF_HUB_OFFLINE forbids downloading it",
    "unset HF_HUB_OFFLINE or give a folder that holds the model",
)
_STATUS = {
    401: ("the hub doesn't accept the token (HTTP 401)", "set HF_TOKEN to a valid token"),
    403: (
        "the hub refuses access (HTTP 403)",
        "set HF_TOKEN to a token that may read this model",
    ),
    429: (
        "the hub limits how often it is asked (HTTP 429)",
        "set HF_TOKEN or try again later",
    ),
}
# What the file system says when the cache can't be written; other numbers come from the network.
_STORAGE = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EIO,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


def explain(error: Exception, repository: str, revision: str) -> CheckpointError:
    """Turn any failure of the client library into an error with a remedy.

    Args:
        error: what the library raised.
        repository: ``"ORG/NAME"``.
        revision: as the user wrote it.
    """
    from huggingface_hub import constants  # noqa: PLC0415 - slow, and loaded by whoever failed

    what, remedy = _words(error, offline=constants.HF_HUB_OFFLINE)
    fields = {
        "repository": repository,
        "revision": revision,
        "endpoint": constants.ENDPOINT,
        "cache": constants.HF_HUB_CACHE,
    }
    for field, value in fields.items():
        what = what.replace(f"{{{field}}}", value)
        remedy = remedy.replace(f"{{{field}}}", value)
    return CheckpointError(what, where=f"hf:{repository}@{revision}", remedy=remedy)


def _words(error: Exception, *, offline: bool) -> tuple[str, str]:
    classes = [cls.__name__ for cls in type(error).__mro__]
    cause = error.__cause__
    if "LocalEntryNotFoundError" in classes:
        # A refusal by the server also comes as "not in the cache", with the reason as its cause.
        if isinstance(cause, Exception) and hasattr(cause, "response"):
            return _words(cause, offline=offline)
        if offline:
            return _OFFLINE
    # The library's classes derive from each other: the first one known is the most special.
    for name in classes:
        if name in _CLASSES:
            return _CLASSES[name]
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return _STATUS.get(status, (f"the hub answered with HTTP {status}", "try again later"))
    if isinstance(error, OSError) and error.errno in _STORAGE:
        return (
            f"the download can't be stored ({error.strerror})",
            "check space and permissions of {cache}, or set HF_HOME to another folder",
        )
    lines = str(error).strip().splitlines() or ["no reason given"]
    return (
        f"the download failed ({type(error).__name__}: {lines[0][:200]})",
        "try again, or give a folder that holds the model",
    )
