"""Docstrings' formulas, typeset: what is written for a terminal becomes LaTeX on the way to the site.

A docstring says ``x_t = a(t) x_0 + b(t) z`` between double backquotes, or puts lines of formulas below a ``::``. Where every name
in it is one of mathematics' it becomes a formula; code, which the same quotes hold, stays code. `to_latex` is the grammar,
`typeset` applies it to a docstring; `formulas.py` beside it does so for the site.
"""

from __future__ import annotations

import re

GREEK = (
    "alpha beta gamma delta epsilon eta theta kappa lambda mu nu phi pi psi rho sigma tau omega Phi Theta Gamma".split()
)
FUNCTIONS = {name: rf"\{name}" for name in ("exp", "ln", "log", "cos", "sin", "tan", "tanh", "arctan", "max", "min")}
FUNCTIONS |= {name: rf"\operatorname{{{name}}}" for name in ("sigmoid", "softmax", "stopgrad", "tr")}
WORDS = {"infinity": r"\infty", "inf": r"\infty", "integral": r"\int", "x_hat": r"\hat{x}"}
UPRIGHT = (
    "average beta_d beta_max beta_min covariance decay flow floor gap latents_mean latents_std mean net noise_std online power score "
    "scaling_factor sd shift_factor sigma_data sigma_rel split stage std time_scale tolerance weights"
).split()
"""Names of fields and arguments, which a reader finds again as they are."""
DIFFERENTIALS = ("dx", "dt", "du", "df", "dw", "dF", "ds", "dX")
BELOW = ("min", "max", "skip", "out", "in", "noise")
"""What stands below a letter as a word, upright."""
RELATIONS = {"=": "=", "<": "<", ">": ">", "<=": r"\le", ">=": r"\ge", "~": r"\sim", "->": r"\to", "<-": r"\leftarrow", "<<": r"\ll"}  # fmt: skip
TOKEN = re.compile(
    r"\s*(\|\||<-(?=\s)|<<|<=|>=|->|\d+(?:\.\d+)?(?:e-?\d+)?|[A-Za-z]+\d*(?:_[A-Za-z0-9]+)*|[-+*/^=<>~|(){}\[\],'_.:!])"
)


class NoFormulaError(ValueError):
    """What was read is not a formula but code or words."""


def to_latex(text: str) -> str:
    """Return a formula in plain letters as LaTeX; `NoFormulaError` for what is none."""
    if re.search(r"""["#{}@]|\*\*|\w\.\w*[a-z]|\w=\w|->\s*\(?\w+[,)]?|::""", text):
        raise NoFormulaError(text)
    return _Reader(text).all()


def is_worth_it(text: str) -> bool:
    """Return whether a piece between quotes is more than a name or a call: those stay as they are typed."""
    return bool(re.search(r"[\^=~+/|<>]| - |^-\(|sqrt\(|E\[|[a-z]_\d|[xtr]_t\b|\bN\(|\w \w|grad_", text))


class _Reader:
    """A reader of one formula from left to right, by descent."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, bool]] = []
        at = 0
        text = text.strip()
        while at < len(text):
            found = TOKEN.match(text, at)
            if not found:
                raise NoFormulaError(text)
            self.tokens.append((found[1], found.start(1) > at or at == 0))
            at = found.end()
        self.at, self.bars, self.flat = 0, 0, False

    def peek(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def spaced(self) -> bool:
        return self.at < len(self.tokens) and self.tokens[self.at][1]

    def take(self, *expected: str) -> str:
        token = self.peek()
        if not token or (expected and token not in expected):
            raise NoFormulaError(token)
        self.at += 1
        return token

    def all(self) -> str:
        result = self.listed()
        if self.peek():
            raise NoFormulaError(self.peek())
        return result

    def listed(self) -> str:
        """Relations between commas."""
        parts = [self.related()]
        while self.peek() == ",":
            self.take()
            parts.append(self.related())
        return ", ".join(parts)

    def related(self) -> str:
        """Sums between relations."""
        parts = [self.summed()]
        while self.peek() in RELATIONS or (self.peek() == "|" and not self.bars):
            parts.append(RELATIONS.get(self.take(), r"\mid"))
            parts.append(self.summed())
        return " ".join(parts)

    def summed(self) -> str:
        """Products between signs."""
        parts = [self.take()] if self.peek() in ("-", "+") else []
        parts.append(self.multiplied())
        while self.peek() in ("-", "+"):
            parts += [self.take(), self.multiplied()]
        return " ".join(parts)

    def multiplied(self) -> str:
        """Factors side by side; a slash takes all of them so far over the one after it."""
        parts = [self.factor()]
        while True:
            token = self.peek()
            if token == "*":
                self.take()
                parts.append(self.factor())
            elif token == "/":
                # du/dt, without a space, is a factor of its own.
                tight = not self.spaced()
                before, parts = (parts[-1:], parts[:-1]) if tight else (parts, [])
                self.take()
                parts.append(self.over(before, self.factor()))
            elif token == "<" and self.spaced() and not self.tokens[self.at + 1 : self.at + 2][0][1]:
                self.take()
                inside = self.summed(), self.take(",") and self.summed()
                self.take(">")
                parts.append(rf"\left\langle {inside[0]}, {inside[1]} \right\rangle")
            elif token and (token[0].isalnum() or token in ("(", "[") or (token == "||" and not self.bars)):
                parts.append(self.factor())
            else:
                return r" \, ".join(parts)

    def over(self, above: list[str], below: str) -> str:
        """A fraction; in an exponent on one line."""
        product = r" \, ".join(above)
        if self.flat:
            return f"{product} / {below}"
        return rf"\frac{{{_bare(product) if len(above) == 1 else product}}}{{{_bare(below)}}}"

    def factor(self) -> str:
        """An atom with what hangs on it: arguments, primes, powers."""
        token = self.peek()
        if token == "sqrt":
            self.take()
            return rf"\sqrt{{{self.bracketed('(', ')')}}}" + self.power()
        if token in ("(", "["):
            inside = self.bracketed(token, ")" if token == "(" else "]")
            return rf"\left{token}{inside}\right{')' if token == '(' else ']'}" + self.power()
        if token in ("|", "||"):
            return self.norm(token) + self.power()
        self.take()
        if token[0].isdigit():
            number, _, exponent = token.partition("e")
            return (rf"{number} \cdot 10^{{{exponent}}}" if exponent else number) + self.power()
        if not token[0].isalpha():
            raise NoFormulaError(token)
        result, function = _name(token), token in FUNCTIONS
        while self.peek() == "'":
            result += self.take()
        result += self.power()
        if self.peek() == "[" and token == "E":
            result = rf"\mathbb{{E}}\left[{self.bracketed('[', ']')}\right]"
        elif self.peek() == "(" and (function or not self.spaced()):
            result += rf"\left({self.bracketed('(', ')')}\right)" + self.power()
        elif function:
            result += rf" {self.factor()}"
        return result

    def power(self) -> str:
        if self.peek() == "_":
            self.take()
            return rf"_{{{self.bracketed('(', ')')}}}" + self.power()
        if self.peek() != "^":
            return ""
        self.take()
        sign = self.take() if self.peek() in ("-", "+") else ""
        flat, self.flat = self.flat, True
        inside = self.bracketed("(", ")") if self.peek() == "(" else self.factor()
        if sign and re.search(r" [-+/] ", inside):
            inside = rf"\left({inside}\right)"
        self.flat = flat
        return rf"^{{{sign}{inside}}}"

    def bracketed(self, opening: str, closing: str) -> str:
        self.take(opening)
        bars, self.bars = self.bars, 0
        inside = self.listed()
        self.bars = bars
        self.take(closing)
        return inside

    def norm(self, bar: str) -> str:
        self.take(bar)
        self.bars += 1
        inside = self.summed()
        self.bars -= 1
        self.take(bar)
        left, right = (r"\left|", r"\right|") if bar == "|" else (r"\left\|", r"\right\|")
        return f"{left}{inside}{right}"


def _bare(factor: str) -> str:
    """A numerator or denominator without the brackets that its bar makes needless."""
    if factor.startswith(r"\left(") and factor.endswith(r"\right)"):
        inside, depth = factor[6:-7], 0
        for piece in re.findall(r"\\left[(\[|\\]|\\right[)\]|\\]", inside):
            depth += 1 if piece.startswith(r"\left") else -1
            if depth < 0:
                return factor
        return inside
    return factor


def _name(token: str) -> str:
    """A name of mathematics as LaTeX."""
    if token in FUNCTIONS:
        return FUNCTIONS[token]
    if token in WORDS:
        return WORDS[token]
    if token in UPRIGHT:
        return rf"\text{{{token}}}"
    if token in DIFFERENTIALS:
        return f"d {token[1:]}"
    if token in GREEK:
        return rf"\{token}"
    if len(token) == 1:
        return token
    head, _, below = token.partition("_")
    if head == "d" and below in ("s", "t"):
        return rf"\partial_{{{below}}}"
    if head == "grad" and len(below) == 1:
        return rf"\nabla_{{{below}}}"
    if head in ("sum", "prod") and (len(below) == 1 or not below):
        return rf"\{head}_{{{below}}}" if below else rf"\{head}"
    if below in BELOW and len(head) == 1:
        return rf"{head}_{{\text{{{below}}}}}"
    if (
        below
        and "_" not in below
        and (len(below) == 1 or below.isdigit())
        and (len(head) == 1 or head in GREEK or head in FUNCTIONS)
    ):
        return rf"{_name(head)}_{{{below}}}"
    if re.fullmatch(r"[a-z]\d", token):
        return rf"{token[0]}_{token[1]}"
    raise NoFormulaError(token)


def typeset(text: str) -> str:
    """Return a docstring with its formulas as LaTeX for `pymdownx.arithmatex`."""
    return re.sub(
        r"``([^`\n]+)``", _inline, re.sub(r"(?m)^(.*?):?:\n\n((?: {4}.*(?:\n|$)|\n(?= {4}))+)", _display, text)
    )


def _inline(found: re.Match[str]) -> str:
    if is_worth_it(found[1]):
        try:
            return rf"\({to_latex(found[1])}\)"
        except NoFormulaError:
            pass
    return found[0]


def _display(found: re.Match[str]) -> str:
    said = f"{found[1]}:" if found[1].strip() else ""
    lines = [piece for line in found[2].splitlines() for piece in re.split(r" {3,}", line.strip()) if piece]
    try:
        formulas = "\n\n".join(rf"\[{to_latex(line)}\]" for line in lines)
    except NoFormulaError:
        return f"{said}\n\n{found[2]}"
    return f"{said}\n\n{formulas}\n"
