"""``edgec run``: generate text with a built model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgec.artifacts.conversation import COMPLETION
from edgec.artifacts.locate import locate_artifact
from edgec.cli.conversing import converse
from edgec.cli.loading import artifact_argument, context_option, threads_option, title
from edgec.cli.options import example, json_option, out_option
from edgec.cli.output import print_json, say
from edgec.cli.streaming import say_stats, stream
from edgec.cli.tensors import run_tensors
from edgec.errors import UsageError
from edgec.runtime.chat import Chat, require_chat
from edgec.runtime.generate import generate
from edgec.runtime.pictures import open_pictures
from edgec.runtime.prompt import USER, Message, chat_prompt, completion_prompt
from edgec.runtime.sampling import SamplingOptions
from edgec.runtime.session import conversation_of, open_session
from edgec.runtime.speculative import (
    DRAFT_MAX,
    Speculation,
    require_no_window,
    require_speculation,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgec.artifacts.artifact import Artifact
    from edgec.artifacts.conversation import Conversation
    from edgec.runtime.embedded_images import Token as PromptToken
    from edgec.runtime.generate import Token
    from edgec.runtime.pictures import Pictures
    from edgec.runtime.session import Session

# A model that only continues text doesn't stop by itself.
_COMPLETION_TOKENS = 256


@click.command(
    epilog=example(
        "edgec run tinypy 'def read_json(path):'",
        "edgec run artifacts/tinypy/x86-64-v4 --temperature 0 < prompt.txt",
        "edgec run qwen25-vl-3b --image cat.png 'What is this?'",
    )
)
@artifact_argument
@click.argument("prompt", required=False)
@click.option(
    "--image",
    "images",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Show the model an image, in front of the message. May be given several times.",
)
@click.option("--chat", is_flag=True, help="Converse over several turns.")
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Most tokens to generate.  [default: {_COMPLETION_TOKENS} to continue a text, else until"
    " the answer ends]",
)
@click.option("--temperature", type=float, metavar="T", help="0 takes the most likely tokens.")
@click.option(
    "--top-p", type=float, metavar="P", help="Choose among the tokens of this probability together."
)
@click.option(
    "--repetition-penalty", type=float, metavar="R", help="Above 1, tokens come again less often."
)
@click.option(
    "--echo/--no-echo",
    default=None,
    help="Print the prompt in front of its continuation.  [default: only on a terminal]",
)
@click.option("--seed", type=int, metavar="N", help="Equal seeds give equal texts.")
@click.option(
    "--speculative",
    type=click.Choice(["off", "ngram"]),
    default="off",
    show_default=True,
    help="ngram guesses tokens by what followed the same tokens before, and computes several at a"
    " time: the same text, faster where it copies from the prompt or from itself. For CPU targets.",
)
@click.option(
    "--draft-max",
    type=click.IntRange(min=1, max=DRAFT_MAX),
    metavar="N",
    help=f"Most tokens to guess at a time, up to {DRAFT_MAX}.  [default: {DRAFT_MAX}]",
)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=FILE.npy",
    help="An input of a generic model. May be repeated.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a generic model's outputs there: .npz, or .npy for a single one.",
)
@threads_option
@context_option
@out_option
@json_option
def command(
    *,
    artifact: str,
    prompt: str | None,
    images: tuple[Path, ...],
    chat: bool,
    max_tokens: int | None,
    temperature: float | None,
    top_p: float | None,
    repetition_penalty: float | None,
    echo: bool | None,
    seed: int | None,
    speculative: str,
    draft_max: int | None,
    inputs: tuple[str, ...],
    output: Path | None,
    threads: int | None,
    context: int | None,
    out: Path,
    as_json: bool,
) -> None:
    """Generate text with a built model.

    ARTIFACT is the folder of an artifact, or the name of a recipe that was built. PROMPT is
    continued as it is if the model only knows to continue text, else it is a message in the model's
    chat format; without PROMPT it is read from stdin. How tokens are chosen is what the artifact
    says unless an option is given.

    A generic model is called on arrays: each input with --input, the outputs go to --output. An
    embedding model takes PROMPT too, and gives its vector.
    """
    if chat and as_json:
        raise UsageError("--chat has no JSON output", remedy="leave out --chat or --json")
    # What can go wrong without the model comes first: loading a large one takes time.
    found = locate_artifact(artifact, out)
    if found.interface is not None:
        _refuse_text_options(
            str(found.folder),
            {
                "--chat": chat or None,
                "--max-tokens": max_tokens,
                "--temperature": temperature,
                "--top-p": top_p,
                "--repetition-penalty": repetition_penalty,
                "--echo": echo,
                "--seed": seed,
                "--speculative": None if speculative == "off" else speculative,
                "--context": context,
            },
        )
        run_tensors(found, prompt, inputs=inputs, output=output, threads=threads, as_json=as_json)
        return
    if inputs or output is not None:
        raise UsageError(
            "--input and --output are for generic models, and this one continues text",
            where=str(found.folder),
            remedy="leave them out",
        )
    conversation = conversation_of(found)
    options = SamplingOptions.from_chat_config(
        found.chat_config,
        temperature=temperature,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
    )
    speculation = _speculation(found, speculative, draft_max)
    if chat or images:
        require_chat(conversation, str(found.folder))
    if not chat and prompt is None:
        prompt = _read_prompt()
    session = _open(found, threads, context, speculation)
    pictures = _pictures(session, images)
    if chat:
        say(click.style(f"{title(found)}, context {session.context}", bold=True))
        turns = Chat(
            session.engine,
            session.tokenizer,
            conversation,
            options,
            max_tokens,
            pictures,
            speculation,
        )
        converse(turns, prompt)
        return
    assert prompt is not None
    continues = conversation.name == COMPLETION
    if max_tokens is None and continues:
        max_tokens = _COMPLETION_TOKENS
    steps = _generate(session, conversation, prompt, options, max_tokens, pictures, speculation)
    if as_json:
        print_json("edgec.run/v1", _collected(session, prompt, options, steps))
        return
    if continues and (sys.stdout.isatty() if echo is None else echo):
        click.secho(prompt, nl=False, bold=True)
    say_stats(stream(steps))


def _refuse_text_options(where: str, options: dict[str, object]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise UsageError(
            f"{given[0]} is for models that write text, and this is a generic one",
            where=where,
            remedy="leave it out; give inputs with --input NAME=FILE.npy, or of an embedding model a"
            " text",
        )


def _speculation(found: Artifact, kind: str, draft_max: int | None) -> Speculation | None:
    if kind == "off":
        if draft_max is not None:
            raise UsageError(
                "--draft-max is for speculative decoding",
                remedy="add --speculative ngram, or leave it out",
            )
        return None
    require_no_window(found.chat_config, str(found.folder))
    return Speculation(draft_max or DRAFT_MAX)


def _open(
    found: Artifact, threads: int | None, context: int | None, speculation: Speculation | None
) -> Session:
    session = open_session(found, threads=threads, context=context)
    if speculation is not None:
        require_speculation(session.engine.metadata, str(found.folder))
    return session


def _generate(
    session: Session,
    conversation: Conversation,
    text: str,
    options: SamplingOptions,
    max_tokens: int | None,
    pictures: Pictures | None,
    speculation: Speculation | None,
) -> Iterator[Token]:
    ids: Sequence[PromptToken]
    if conversation.name == COMPLETION:
        ids = completion_prompt(session.tokenizer, conversation, text)
    elif pictures is None:
        ids = chat_prompt(session.tokenizer, conversation, [Message(USER, text)])
    else:
        message = Message(USER, pictures.prefix + text)
        ids = pictures.put(chat_prompt(session.tokenizer, conversation, [message]))
    return generate(
        session.engine,
        session.tokenizer,
        ids,
        options,
        max_tokens=max_tokens,
        stop_ids=conversation.stop_token_ids,
        stop_strings=conversation.stop_str,
        speculation=speculation,
    )


def _pictures(session: Session, files: Sequence[Path]) -> Pictures | None:
    if not files:
        return None
    return open_pictures(files, session.engine, session.tokenizer, session.chat_config)


def _read_prompt() -> str:
    if sys.stdin.isatty():
        answer: str = click.prompt("prompt", err=True)
        return answer
    # As a shell does with a command's output: echo adds a line's end that isn't meant.
    return sys.stdin.read().removesuffix("\n")


def _collected(
    session: Session, prompt: str, options: SamplingOptions, steps: Iterator[Token]
) -> dict[str, Any]:
    every = list(steps)
    stats = every[-1].stats
    assert stats is not None, "a generation ends with its statistics"
    return {
        "artifact": str(session.artifact.folder),
        "name": session.artifact.manifest["name"],
        "target": session.artifact.manifest["target"],
        "prompt": prompt,
        "text": "".join(step.text for step in every),
        "token_ids": [step.id for step in every if step.id is not None],
        "finish_reason": stats.finish_reason,
        "prompt_tokens": stats.prompt_tokens,
        "generated_tokens": stats.generated_tokens,
        "time_to_first_token_s": stats.time_to_first_token,
        "prefill_tokens_per_s": stats.prefill_rate,
        "decode_tokens_per_s": stats.decode_rate,
        "load_s": session.load_seconds,
        "threads": session.threads,
        "context": session.context,
        "sampling": dict(vars(options)),
        "speculation": None if stats.speculation is None else stats.speculation.to_json(),
    }
