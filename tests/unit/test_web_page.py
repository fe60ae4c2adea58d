"""The page of a package in Chromium, with a double of WebLLM: every way through it."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from web_fakes import CHAT, use_engine, web_artifact

from edgec.packaging.package import plan_package
from web_page.browse import ENGINE, Browser, adapter, needs_browser
from web_page.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgec.artifacts.artifact import Artifact
    from web_page.serving import Server

pytestmark = needs_browser()

SHARDS = [b"\1" * 5000, b"\2" * 4000]
FILES = "models/{}/resolve/main"
LOADED = [["click", "#load"], ["see", "#completion:not([hidden]), #chat:not([hidden])"]]
FAILED = [["click", "#load"], ["see", "#problem"], ["text", "#problem"]]


NO_ADAPTER = (
    "Object.defineProperty(navigator, 'gpu', { value: { requestAdapter: async () => null } })"
)


class Site:
    """A package that is served below a path of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "site"
        self._artifacts = folder / "artifacts"
        self._made = 0
        use_engine(monkeypatch, ENGINE)
        self.server: Server

    def artifact(self, scheme: str = "q4f32_1", **options: Any) -> Artifact:
        self._made += 1
        place = self._artifacts / str(self._made)
        return web_artifact(place, "toy", scheme, **{"shards": SHARDS, **options})

    def write(self, *artifacts: Artifact) -> None:
        plan = self.plan()
        (self.folder / "double.json").unlink(missing_ok=True)
        plan_package(artifacts, urls={}, bundle=False, delivery=None).write(self.folder)
        self.behave(**plan)

    def behave(self, **plan: Any) -> None:
        """Tell the double what is to happen."""
        (self.folder / "double.json").write_text(json.dumps(plan))

    def plan(self) -> dict[str, Any]:
        path = self.folder / "double.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def file(self, name: str, scheme: str = "q4f32_1") -> Path:
        return self.folder / FILES.format(f"toy-{scheme}") / name

    @property
    def url(self) -> str:
        return self.server.url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    made = Browser()
    yield made
    made.close()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    made = Site(tmp_path, monkeypatch)
    with serving(made.folder, "/some/where/") as made.server:
        yield made


def test_a_text_is_continued_stopped_and_taken_back(browser: Browser, site: Site) -> None:
    site.write(site.artifact(chat={"context_window_size": 2048}))
    site.behave(words=" one" * 400)
    seen = browser.browse(
        ["open", site.url],
        *LOADED,
        ["fill", "#text", "zero"],
        ["press", "#text", "Control+Enter"],
        ["has", "#figures", "tokens"],
        ["value", "#text"],
        ["text", "#figures"],
        ["click", "#undo"],
        ["value", "#text"],
        ["click", "#settings summary"],
        ["fill", "#max-tokens", "400"],
        ["click", "#continue"],
        ["see", "#halt"],
        ["press", "body", "Escape"],
        ["has", "#figures", "stopped"],
        ["value", "#text"],
        script=adapter(),
    )
    full, figures, before, stopped = seen.found
    assert full == "zero" + " one" * 128, "128 tokens unless said otherwise"
    assert figures.startswith("128 tokens · 61.7 tokens/s · first after 0.")
    assert figures.endswith("length limit reached")
    assert before == "zero"
    assert stopped.startswith("zero")
    assert len(stopped) < len(full)


def test_a_conversation_keeps_what_was_said(browser: Browser, site: Site) -> None:
    site.write(site.artifact(chat={"conv_template": CHAT}))
    seen = browser.browse(
        ["open", site.url],
        *LOADED,
        ["fill", "#question", "cost $& $1"],
        ["press", "#question", "Enter"],
        ["has", "#log .figures", "tokens/s"],
        ["text", ".assistant .body"],
        ["fill", "#question", "second"],
        ["click", "#send"],
        ["has", ".message:nth-child(4) .figures", "tokens/s"],
        ["text", ".message:nth-child(4) .body"],
        ["click", "#clear"],
        ["fill", "#question", "third"],
        ["click", "#send"],
        ["has", "#log .figures", "tokens/s"],
        ["text", ".assistant .body"],
        script=adapter(),
    )
    # Each $ twice, because WebLLM takes contents as patterns of String.replace.
    first = 'You said [["user","cost $$& $$1"]] with 0.'
    assert seen.found[0] == first
    history = ["user", "cost $$& $$1"], ["assistant", first.replace("$", "$$")], ["user", "second"]
    assert seen.found[1] == f"You said {json.dumps(history, separators=(',', ':'))} with 0."
    assert seen.found[2] == 'You said [["user","third"]] with 0.'
    assert not [line for line in seen.said if line.startswith(("error", "pageerror"))]


def test_a_completion_with_tokens_in_front_is_asked_for_as_a_chat(
    browser: Browser, site: Site
) -> None:
    begun = {"name": "completion", "system_prefix_token_ids": [1]}
    site.write(site.artifact(chat={"conv_template": {**CHAT, **begun}}))
    steps = [
        ["open", site.url],
        *LOADED,
        ["fill", "#text", "x$"],
        ["click", "#continue"],
        ["has", "#figures", "tokens"],
        ["value", "#text"],
    ]
    assert browser.browse(*steps, script=adapter()).found == ['x$You said [["user","x$$"]] with 0.']
    site.write(site.artifact())
    assert browser.browse(*steps, script=adapter()).found == ['x$You said "x$" with 0.']


def test_code_is_set_apart_and_nothing_is_html(browser: Browser, site: Site) -> None:
    site.write(site.artifact(chat={"conv_template": CHAT}))
    site.behave(words="Try `a` <b>now</b>:\n```html\n<i>1</i>\n```\nor\n```\nunfinished")
    seen = browser.browse(
        ["open", site.url],
        *LOADED,
        ["fill", "#question", "<u>?</u>"],
        ["click", "#send"],
        ["has", "#log .figures", "tokens/s"],
        ["evaluate", "document.querySelector('.assistant .body').innerHTML"],
        ["text", ".user"],
        script=adapter(),
    )
    assert seen.found[0] == (
        "<p>Try <code>a</code> &lt;b&gt;now&lt;/b&gt;:</p><pre><code>&lt;i&gt;1&lt;/i&gt;</code></pre>"
        "<p>or</p><pre><code>unfinished</code></pre>"
    )
    assert seen.found[1].endswith("<u>?</u>")


def test_a_second_visit_downloads_nothing(browser: Browser, site: Site) -> None:
    site.write(site.artifact())
    keys = "caches.open('webllm/model').then((c) => c.keys()).then((k) => k.length)"
    seen = browser.browse(
        ["open", site.url],
        ["has", "#load", "Download"],
        *LOADED,
        ["evaluate", keys],
        ["reload"],
        ["has", "#load", "Start"],
        *LOADED,
        ["evaluate", keys],
        ["click", "#change"],
        ["click", "#forget"],
        ["has", "#load", "Download"],
        ["evaluate", keys],
        script=adapter(),
    )
    assert seen.found == [4, 4, 0]
    asked = site.server.asked
    for name in ("params_shard_0.bin", "params_shard_1.bin", "tokenizer.json"):
        assert asked.count(name) == 1, name


def test_of_a_new_build_what_differs_is_downloaded(browser: Browser, site: Site) -> None:
    old = site.artifact()
    new = site.artifact(shards=[SHARDS[0], b"\3" * 3000])
    site.write(old)

    def renew() -> None:
        """Files change at another second, by which servers and browsers tell builds apart."""
        site.write(new)
        later = time.time() + 5
        for path in site.folder.rglob("*"):
            os.utime(path, (later, later))

    site.server.hooks["now"] = renew
    seen = browser.browse(
        ["open", site.url],
        *LOADED,
        ["fetch", f"{site.url}now"],
        ["reload"],
        ["has", "#load", "Download"],
        *LOADED,
        ["evaluate", "caches.open('webllm/model').then((c) => c.keys()).then((k) => k.length)"],
        script=adapter(),
    )
    asked = site.server.asked
    assert asked.count("params_shard_0.bin") == 1
    assert asked.count("params_shard_1.bin") == 2
    assert seen.found == [4]


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("params_shard_1.bin", lambda data: data[:-1000], r"has 3 000 of 4 000 bytes: it was cut"),
        ("params_shard_0.bin", lambda data: b"\0" + data[1:], r"has other contents: it is of"),
        ("params_shard_0.bin", lambda data: data + b"\0", r"has more than 5 000 bytes"),
        ("tokenizer.json", lambda data: data.replace(b"a", b"b"), r"has other contents"),
        ("mlc-chat-config.json", lambda _: b"", r"has 0 of"),
        ("params_shard_1.bin", None, r"HTTP status 404"),
    ],
)
def test_damaged_files_are_named_and_not_loaded(
    browser: Browser, site: Site, name: str, damage: Any, message: str
) -> None:
    site.write(site.artifact())
    path = site.file(name)
    data = path.read_bytes()
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(data))
    seen = browser.browse(["open", site.url], *FAILED, ["gone", "#completion"], script=adapter())
    (text,) = seen.found
    title = "A file is missing" if damage is None else "A file is damaged"
    assert text.startswith(title)
    said = text.replace("\u202f", " ")
    assert f"{name} {message}" in said
    assert "upload the folder that edgec package wrote again" in said


def test_a_page_in_the_place_of_a_file(browser: Browser, site: Site) -> None:
    site.write(site.artifact())
    site.server.pages = {"params_shard_0.bin"}
    (text,) = browser.browse(["open", site.url], *FAILED, script=adapter()).found
    assert "params_shard_0.bin is a web page on the server" in text


def test_a_library_of_another_build_is_refused(browser: Browser, site: Site) -> None:
    site.write(site.artifact())
    library = site.folder / "models/toy-q4f32_1.wasm"
    library.write_bytes(library.read_bytes()[:-1] + b"\7")
    (text,) = browser.browse(["open", site.url], *FAILED, script=adapter()).found
    assert "models/toy-q4f32_1.wasm has other contents" in text


def test_lists_of_two_packages_are_refused(browser: Browser, site: Site) -> None:
    site.write(site.artifact())
    path = site.folder / "app-config.json"
    path.write_text(path.read_text().replace('"model_lib": "sha256-', '"model_lib": "sha256-AAAA'))
    seen = browser.browse(
        ["open", site.url], ["see", "#problem"], ["text", "#problem"], script=adapter()
    )
    assert "app-config.json and edgec-models.json say different things" in seen.found[0]
    path.write_text("{")
    seen = browser.browse(
        ["open", site.url], ["see", "#problem"], ["text", "#problem"], script=adapter()
    )
    assert "app-config.json is not the list that edgec package wrote" in seen.found[0]


def test_what_is_here_is_kept_when_the_connection_breaks(browser: Browser, site: Site) -> None:
    site.write(site.artifact())
    site.server.broken = {"params_shard_1.bin"}
    site.server.hooks["repair"] = site.server.broken.clear
    seen = browser.browse(
        ["open", site.url],
        *FAILED,
        ["fetch", f"{site.url}repair"],
        ["click", "#retry"],
        ["see", "#completion"],
        script=adapter(),
    )
    assert seen.found[0].startswith("The connection broke\n\nparams_shard_1.bin could not be")
    asked = site.server.asked
    assert asked.count("params_shard_1.bin") == 4, "three attempts, and the one that succeeded"
    assert asked.count("params_shard_0.bin") == 1


@pytest.mark.parametrize(
    ("script", "title"),
    [
        ("Object.defineProperty(navigator, 'gpu', { value: undefined })", "has no WebGPU"),
        (NO_ADAPTER, "No graphics processor was found"),
        ("Object.defineProperty(window, 'isSecureContext', { value: false })", "isn't secure"),
        (adapter(storage=8), "The graphics processor is too small"),
        (adapter(binding=1 << 26), "The graphics processor is too small"),
    ],
)
def test_a_device_without_what_it_takes_is_told_so(
    browser: Browser, site: Site, script: str, title: str
) -> None:
    site.write(site.artifact())
    seen = browser.browse(
        ["open", site.url], ["see", "#problem"], ["text", "#problem-title"], script=script
    )
    assert title in seen.found[0]


def test_a_model_that_the_device_cannot_run_is_not_offered(browser: Browser, site: Site) -> None:
    site.write(site.artifact("q4f16_1"), site.artifact("q4f32_1"))
    steps = [["open", site.url], ["see", "#start"], ["text", "#models"]]
    checked = ["evaluate", "document.querySelector('#models input:checked')?.value"]
    half = browser.browse(*steps, checked, script=adapter())
    assert half.found[1] == "toy-q4f16_1"
    assert "shader-f16" not in half.found[0]
    single = browser.browse(*steps, checked, script=adapter(features=()))
    assert single.found[1] == "toy-q4f32_1"
    assert "16-bit numbers (shader-f16)" in single.found[0]
    asked = [["open", f"{site.url}?model=toy-q4f32_1"], *steps[1:]]
    assert browser.browse(*asked, checked, script=adapter()).found[1] == "toy-q4f32_1"
    big = {"memory__largest_buffer_bytes": 1 << 28}
    site.write(site.artifact(changes=big))
    seen = browser.browse(*steps, ["text", "#load"], script=adapter(binding=(1 << 30) - 1))
    assert "has a tensor of 268 MB, and buffers have at most 134 MB here" in seen.found[0]
    assert seen.found[1] == "No model runs on this device"


def test_an_error_of_the_engine_is_explained(browser: Browser, site: Site) -> None:
    site.write(site.artifact())
    text = "Cannot find parameter in cache: model.layers.0.mlp.weight"
    site.behave(fail={"name": "ValueError", "message": text})
    seen = browser.browse(
        ["open", site.url],
        *FAILED,
        ["click", "#problem summary"],
        ["text", "#problem-detail"],
        ["click", "#back"],
        ["see", "#start"],
        script=adapter(),
    )
    assert seen.found[0].startswith("Library and weights don't fit together")
    assert seen.found[1] == f"ValueError: {text}"


def test_a_question_that_fails_comes_back(browser: Browser, site: Site) -> None:
    site.write(site.artifact(chat={"conv_template": CHAT}))
    what = "Prompt tokens exceed context window size: number of prompt tokens: 900; context window size: 64\n"
    site.behave(ask={"name": "ContextWindowSizeExceededError", "message": what})
    seen = browser.browse(
        ["open", site.url],
        *LOADED,
        ["fill", "#question", "long"],
        ["click", "#send"],
        ["see", "#problem"],
        ["text", "#problem-text"],
        ["see", "#chat"],
        ["value", "#question"],
        ["click", "#back"],
        ["gone", "#problem"],
        ["see", "#send"],
        script=adapter(),
    )
    assert seen.found == ["It has 900 tokens, and the model takes 64.", "long"]


def test_an_error_of_the_gpu_ends_the_answer(browser: Browser, site: Site) -> None:
    site.write(site.artifact())
    site.behave(invalid=True)
    seen = browser.browse(
        ["open", site.url],
        *LOADED,
        ["fill", "#text", "x"],
        ["click", "#continue"],
        ["see", "#problem"],
        ["text", "#problem-title"],
        ["click", "#retry"],
        ["see", "#completion"],
    )
    assert seen.found == ["The graphics processor reported an error"]


def test_what_is_typed_cannot_leave(browser: Browser, site: Site, tmp_path: Path) -> None:
    site.write(site.artifact())
    with serving(tmp_path) as elsewhere:
        site.behave(leak=f"{elsewhere.url}take?text=secret")
        seen = browser.browse(
            ["open", site.url],
            *LOADED,
            ["fill", "#text", "secret "],
            ["click", "#continue"],
            ["has", "#figures", "token"],
            ["value", "#text"],
            script=adapter(),
        )
        assert elsewhere.asked == []
    assert seen.found == ["secret blocked"]
    assert [
        url for url in seen.requests if not url.removeprefix("blob:").startswith(site.server.origin)
    ] == []


def test_a_page_whose_program_does_not_start_says_so(browser: Browser, site: Site) -> None:
    site.write(site.artifact())
    (site.folder / "web-llm/index.js").unlink()
    (text,) = browser.browse(["open", site.url], *FAILED, script=adapter()).found
    assert text.startswith("The page's program didn't start")
    (site.folder / "lib/models.js").unlink()
    seen = browser.browse(["open", site.url], ["see", "#unstarted"], ["text", "#unstarted"])
    assert "one of the page's files is missing" in seen.found[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(
    browser: Browser, site: Site, tmp_path: Path, scheme: str
) -> None:
    site.write(site.artifact(chat={"conv_template": CHAT}), site.artifact("q4f16_1"))
    site.behave(words="A `long_name_" + "x" * 90 + "` and\n```\n" + "y" * 200 + "\n```\n")
    wide = "document.documentElement.scrollWidth > innerWidth"
    image = tmp_path / "phone.png"
    seen = browser.browse(
        ["open", site.url],
        ["see", "#start"],
        ["evaluate", wide],
        *LOADED,
        ["fill", "#question", "z" * 300],
        ["click", "#send"],
        ["has", "#log .figures", "tokens/s"],
        ["evaluate", wide],
        ["screenshot", str(image)],
        script=adapter(),
        scheme=scheme,
        viewport={"width": 360, "height": 640},
        touch=True,
    )
    assert seen.found == [False, False]
    assert image.stat().st_size > 1000
