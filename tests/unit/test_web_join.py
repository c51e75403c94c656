"""Many modules as one script: the same behaviour, or an error with the file's name."""

import re

import pytest

from edge.web_join import script, style


def test_each_module_is_there_once_behind_what_it_imports() -> None:
    sources = {
        "app/main.js": "import { add } from './sum.js';\nimport '../effect.js';\nsay(add(1));\n",
        "app/sum.js": "import { TWO,\n  two } from './two.js';\n"
        "export const add = (n) => n + TWO;\n",
        "effect.js": "export * from './app/two.js';\nexport class Effect {}\n",
        "app/two.js": "const own = 1;\nexport const TWO = own + 1;\n"
        "export async function two() {}\n",
    }
    joined, order = script(sources, "app/main.js")
    assert order == ["app/two.js", "app/sum.js", "effect.js", "app/main.js"]
    assert re.findall(r"^// (\S+)$", joined, re.MULTILINE) == order
    assert "return { TWO, two };" in joined
    assert "const { TWO, two } = $app_two;" in joined
    assert "return { Effect, ...$app_two };" in joined
    assert joined.endswith("// app/main.js\nconst { add } = $app_sum;\nsay(add(1));\n")
    assert not re.search(r"^(import|export)\b", joined, re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import { a } from './b.js';\nexport const x = 1;\n", "a.js imports itself"),
        ("import { a } from './none.js';\n", "none.js is imported, but there is no such file"),
        ("import { c, b } from './c.js';\n", "a.js: c.js exports no b"),
        ("import * as c from './c.js';\n", 'a.js: cannot join "import * as c'),
        ("import c from './c.js';\n", "a.js: cannot join"),
        ("import { c as d } from './c.js';\n", "a.js: c.js exports no c as d"),
        ("export default 1;\n", "a.js: cannot join 'export default 1;'"),
        ("export let changes = 1;\n", "a.js: cannot join 'export let"),
        ("import { d } from './d/d.js';\n", "d/d.js: cannot join"),
    ],
)
def test_what_cannot_be_joined_is_named(text: str, said: str) -> None:
    sources = {
        "a.js": text,
        "b.js": "import { x } from './a.js';\nexport const a = x;\n",
        "c.js": "export const c = 1;\n",
        "d/d.js": "export const d = import.meta.url;\n",
    }
    with pytest.raises(ValueError, match=re.escape(said)):
        script(sources, "a.js")


def test_styles_take_the_place_of_their_rules() -> None:
    sources = {
        "css/page.css": '/* All. */\n@import url("a.css");\n@import url("b.css");\n',
        "css/a.css": "a {}\n",
        "css/b.css": "b {}\n",
    }
    joined, names = style(sources, "css/page.css")
    assert joined == "/* All. */\na {}\nb {}\n"
    assert names == ["css/page.css", "css/a.css", "css/b.css"]
    with pytest.raises(ValueError, match=r"css/page\.css: there is no css/c\.css"):
        style({"css/page.css": '@import url("c.css");\n'}, "css/page.css")
