"""Break the decisions in every small way, one at a time, and see that a test fails for each.

    python -m tools.mutants             all of MODULES
    python -m tools.mutants release.guards
                                        one of them
    python -m tools.mutants --again     only what survived the last time
    python -m tools.mutants --sample 50 as many of each module, the same ones every time
    python -m tools.mutants harvester.places --by test_places.py
                                        what these tests alone let live, in a few minutes

The changes are those of mutmut, conditions that are forced either way, and operands of `and` and
`or` that are left out. mutmut itself cannot run here: it passes over every function with a
decorator, which is every guard and every property.

A mutant that no test kills has to be killed by one, or to be explained in tools/mutants.yaml, with
the reason why it does no harm; an explanation that nothing needs any more is an error.

Texts with a space in them are left alone: they are what people read, and the screens in docs/ hold
them. The other strings are names that the API, a script or an operator depends on.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.machinery
import importlib.util
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import libcst as cst
import pytest
import yaml
from libcst import matchers
from mutmut.mutation import mutators

PACKAGE = "kubectl_harvester_stuck"
ROOT = Path(__file__).parent.parent
EXPLAINED = Path(__file__).with_suffix(".yaml")
LIVING = ROOT / "build" / "mutants.json"
"""What survived the last time."""

QUICK = (
    "test_kubelet.py",
    "test_node_health.py",
    "test_target.py",
    "test_places.py",
    "test_grace_period.py",
    "test_goes_with_vm.py",
    "test_harmless.py",
    "test_guards.py",
    "test_finalizers.py",
    "test_plan.py",
    "test_exit_status.py",
    "test_findings.py",
    "test_findings_told.py",
    "test_scenarios.py",
    "test_webhook_denials.py",
)
SLOW = ("behaviour/test_unstick.py", "behaviour/test_diagnose.py", "behaviour/test_stories.py",
        "test_properties.py", "test_reads.py")  # fmt: skip

MODULES = (
    "harvester.kubelet",
    "harvester.node_health",
    "harvester.target",
    "harvester.places",
    "harvester.grace_period",
    "harvester.goes_with_vm",
    "harvester.harmless",
    "release.guards",
    "harvester.finalizers",
    "harvester.finalizer_judges",
    "harvester.finalizer_catalogue",
    "harvester.webhook_denials",
    "k8s.reads",
    "release.plan",
    "cli.exit_status",
    "diagnosis.findings",
    "diagnosis.findings.base",
    "diagnosis.findings.guest",
    "diagnosis.findings.admission",
    "diagnosis.findings.owners",
)

PATIENCE = 600
"""Seconds for the tests of one mutant; one that takes longer is dead."""

Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class Mutant:
    """One change of a module: the lines that go, and those that come in their place."""

    module: str
    function: str
    was: str
    becomes: str
    source: str
    at_import: bool = False
    """Whether the change is in what runs at import: outside every function, or a decorator."""

    @property
    def key(self) -> Key:
        """What an explanation names it by."""
        return self.module, self.function, self.was, self.becomes

    def __str__(self) -> str:
        lines = [f"{self.module} {self.function}"]
        lines += [f"  - {line}" for line in self.was.splitlines()]
        lines += [f"  + {line}" for line in self.becomes.splitlines()]
        return "\n".join(lines)


def path_of(module: str) -> Path:
    """The file of a module of the package."""
    path = ROOT.joinpath(PACKAGE, *module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


# What is changed, and into what


def bracketed(node: cst.BaseExpression) -> cst.BaseExpression:
    """The same in brackets, which may then stand anywhere."""
    return node.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])


def force_condition(node: cst.If | cst.CompIf) -> Iterator[cst.CSTNode]:
    """The condition is never true, and always."""
    for operator, literal in ((cst.And(), "False"), (cst.Or(), "True")):
        test = cst.BooleanOperation(bracketed(node.test), operator, cst.Name(literal))
        yield node.with_changes(test=test)


def drop_operand(node: cst.BooleanOperation) -> Iterator[cst.CSTNode]:
    """Either side of `and` and `or` alone."""
    yield bracketed(node.left)
    yield bracketed(node.right)


def rename(node: cst.SimpleString) -> Iterable[cst.CSTNode]:
    """Another name, where the text is one."""
    return islice(mutators.operator_string(node), 0 if " " in node.value else 1)


OPERATORS: tuple[tuple[Any, Callable[[Any], Iterable[cst.CSTNode]]], ...] = (
    *(pair for pair in mutators.mutation_operators if pair[0] is not cst.BaseString),
    (cst.SimpleString, rename),
    (cst.If | cst.CompIf, force_condition),
    (cst.BooleanOperation, drop_operand),
)

# Annotations, names of types and `__all__` are not run, a missing import is no decision, and
# neither is a frozen class.
LEFT_ALONE = (
    matchers.Annotation()
    | matchers.Assign(targets=[matchers.AssignTarget(matchers.Name("__all__"))])
    | matchers.Assign(value=matchers.Subscript(matchers.Name("Callable") | matchers.Name("tuple")))
    | matchers.Import()
    | matchers.ImportFrom()
    | matchers.Decorator(matchers.Call(matchers.Name("dataclass")))
)


class Places(cst.CSTVisitor):
    """Every node that can be changed, what it can be changed to, and what it stands in."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[tuple[cst.CSTNode, ...], cst.CSTNode, cst.CSTNode]] = []
        self._around: list[cst.FunctionDef | cst.ClassDef | cst.Decorator] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        """Note the changes of this node; False leaves out everything in it."""
        if matchers.matches(node, LEFT_ALONE):
            return False
        if isinstance(node, cst.FunctionDef | cst.ClassDef | cst.Decorator):
            self._around.append(node)
        for kind, operator in OPERATORS:
            if isinstance(node, kind):
                around = tuple(self._around)
                self.found += [(around, node, changed) for changed in operator(node)]
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        """Forget the function, class or decorator that ends here."""
        if self._around and original_node is self._around[-1]:
            self._around.pop()


def mutants_of(module: str) -> Iterator[Mutant]:
    """Every mutant of a module that still compiles, each once."""
    tree = cst.parse_module(path_of(module).read_text())
    head = tree.with_changes(body=()).code
    parts = [tree.code_for_node(part) for part in tree.body]
    known = {tree.code}
    for number, part in enumerate(tree.body):
        places = Places()
        part.visit(places)
        for around, node, changed in places.found:
            mutated = part.deep_replace(node, changed)
            assert isinstance(mutated, cst.CSTNode)
            code = tree.code_for_node(mutated)
            source = head + "".join([*parts[:number], code, *parts[number + 1 :]])
            if source in known or not compiles(code):
                continue
            known.add(source)
            inside = [
                outer for outer in around if isinstance(outer, cst.FunctionDef | cst.ClassDef)
            ]
            yield Mutant(
                module,
                ".".join(outer.name.value for outer in inside),
                *difference(parts[number], code),
                source,
                at_import=len(inside) < len(around)
                or not any(isinstance(outer, cst.FunctionDef) for outer in inside),
            )


def chosen(module: str, number: int | None) -> list[Mutant]:
    """Every mutant of a module, or so many of them at random."""
    every = list(mutants_of(module))
    if number is None or number >= len(every):
        return every
    return random.Random(module).sample(every, number)


def compiles(code: str) -> bool:
    """Whether it is Python at all."""
    try:
        compile(code, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def difference(before: str, after: str) -> tuple[str, str]:
    """The lines that went, and those that came: everything between what stays at both ends."""
    old, new = ([line.strip() for line in code.splitlines()] for code in (before, after))
    while old and new and old[0] == new[0]:
        del old[0], new[0]
    while old and new and old[-1] == new[-1]:
        del old[-1], new[-1]
    return "\n".join(old), "\n".join(new)


# How a mutant is judged


def survivors(
    passes: Callable[[Mutant], bool], mutants: Iterable[Mutant], workers: int
) -> Iterator[Mutant]:
    """Those with which everything passes, each tried in a process of its own."""
    waiting, running = iter(mutants), dict[int, Mutant]()
    while True:
        for mutant in islice(waiting, workers - len(running)):
            running[start(passes, mutant)] = mutant
        if not running:
            return
        child, status = os.wait()
        mutant = running.pop(child)
        if status == 0:
            yield mutant


def start(passes: Callable[[Mutant], bool], mutant: Mutant) -> int:
    """Fork a process that ends in 0 when everything passes; its id."""
    child = os.fork()
    if child:
        return child
    signal.alarm(PATIENCE)
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    status = 1
    with suppress(BaseException), tempfile.TemporaryDirectory() as directory:
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = directory
        os.environ["PYTEST_DEBUG_TEMPROOT"] = directory
        status = 0 if passes(mutant) else 1
    os._exit(status)


def run_tests(names: Iterable[str], *plugins: object) -> bool:
    """Whether these tests pass on the simulated API server; they end at the first that does not."""
    paths = [f"tests/{name}" for name in names]
    options = ["-x", "-q", "-s", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", "not real"]
    return pytest.main([*options, *paths], plugins) == 0


class Quick:
    """A plugin of pytest that takes over once the quick tests are imported and collected.

    Every process that is forked from there is spared both. The module is changed where it stands.
    Not all that was computed from it at import changes with it, so what survives here is judged
    once more from the start.
    """

    def __init__(self, mutants: Sequence[Mutant], workers: int) -> None:
        self.mutants = mutants
        self.workers = workers
        self.living: list[Mutant] = []
        self._items: list[pytest.Item] = []

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In place of pytest: run the tests once for each mutant."""
        self._items = session.items
        self.living = list(survivors(self._passes, self.mutants, self.workers))
        return True

    def _passes(self, mutant: Mutant) -> bool:
        change_in_place(mutant)
        about = mutant.module.rpartition(".")[2]  # its own tests first: they are likely to see it
        items = sorted(self._items, key=lambda item: about not in item.path.name)
        for item, after in zip(items, [*items[1:], None], strict=True):
            item.ihook.pytest_runtest_protocol(item=item, nextitem=after)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """End the run of this mutant at the first test that fails."""
        if report.failed:
            raise KeyboardInterrupt  # one is enough


def change_in_place(mutant: Mutant) -> None:
    """Make the imported module the mutant, as far as that can be done afterwards."""
    name = f"{PACKAGE}.{mutant.module}"
    module, changed = sys.modules[name], ModuleType(name)
    sys.modules[name] = changed  # where dataclasses look
    exec(compile(mutant.source, str(path_of(mutant.module)), "exec"), vars(changed))
    sys.modules[name] = module
    if mutant.at_import:
        replace_names(module, changed)
    else:
        swap_code(vars(module), vars(changed), name)


def replace_names(module: ModuleType, changed: ModuleType) -> None:
    """Put what is new under its name, there and wherever it was imported from there."""
    ours = [user for name, user in sys.modules.items() if name.startswith((PACKAGE, "tests."))]
    for name, old in list(vars(module).items()):
        if name.startswith("__") or not hasattr(changed, name):
            continue
        for user in ours:
            if getattr(user, name, None) is old:
                setattr(user, name, getattr(changed, name))


def swap_code(olds: Mapping[str, Any], news: Mapping[str, Any], module: str) -> None:
    """Put the code of the new functions into the old, methods and properties included."""
    for name, old in olds.items():
        new = news.get(name)
        if isinstance(old, type) and isinstance(new, type) and old.__module__ == module:
            swap_code(vars(old), vars(new), module)
        old, new = map(function_of, (old, new))
        if isinstance(old, FunctionType) and isinstance(new, FunctionType) and old is not new:
            old.__code__ = new.__code__
            old.__defaults__, old.__kwdefaults__ = new.__defaults__, new.__kwdefaults__


def function_of(value: Any) -> Any:
    """What is behind a property, a cached one or a method; anything else as it is."""
    behind = (getattr(value, name, None) for name in ("fget", "func", "__func__"))
    return next(filter(None, behind), value)


class Changed(importlib.machinery.SourceFileLoader):
    """Finds and loads one module with another source, past its cached bytecode."""

    def __init__(self, mutant: Mutant) -> None:
        super().__init__(f"{PACKAGE}.{mutant.module}", str(path_of(mutant.module)))
        self._source = mutant.source

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        """As a finder, it knows this module alone."""
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def get_code(self, _fullname: str) -> CodeType:
        """The changed source, compiled."""
        return compile(self._source, self.path, "exec", dont_inherit=True)


def from_the_start(names: Sequence[str]) -> Callable[[Mutant], bool]:
    """What says whether these tests pass when everything is imported anew."""

    def passes(mutant: Mutant) -> bool:
        for name in [*sys.modules]:
            if name.partition(".")[0] in (PACKAGE, "tests"):
                del sys.modules[name]
        sys.meta_path.insert(0, Changed(mutant))
        return run_tests(names)

    return passes


# The run


def explanations() -> dict[Key, str]:
    """The reasons of tools/mutants.yaml, by the mutant that each stands for."""
    return {
        (module, item.get("in", ""), item["was"].strip(), item["becomes"].strip()): entry["why"]
        for module, entries in (yaml.safe_load(EXPLAINED.read_text()) or {}).items()
        for entry in entries
        for item in entry["mutants"]
    }


def main() -> int:
    """Returns 0 when every survivor is explained, and every explanation needed."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=", ".join(MODULES))
    parser.add_argument("--again", action="store_true", help="only what survived the last time")
    parser.add_argument("--sample", type=int, metavar="N", help="at most so many of each module")
    parser.add_argument("--quick", action="store_true", help="leave the slow tests out")
    parser.add_argument("--by", action="append", metavar="FILE", help="only these of the tests")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    os.chdir(ROOT)
    began = time.monotonic()
    modules = options.modules or MODULES
    mutants = [mutant for module in modules for mutant in chosen(module, options.sample)]
    if options.again:
        left = {tuple(key) for key in json.loads(LIVING.read_text())}
        mutants = [mutant for mutant in mutants if mutant.key in left]
    explained = explanations()
    first = options.by or QUICK
    then = first if options.by or options.quick else (*QUICK, *SLOW)
    living = judge(mutants, explained, options.workers, first, then)
    LIVING.parent.mkdir(exist_ok=True)
    LIVING.write_text(json.dumps([mutant.key for mutant in living]))
    for mutant in living:
        if mutant.key not in explained:
            print(mutant)
    is_whole = not options.again and options.sample is None and not options.by
    unused = explained.keys() - {mutant.key for mutant in living} if is_whole else set()
    idle = [key for key in unused if key[0] in modules]
    for key in idle:
        print("explained for nothing:", *key, sep="\n  ")
    surviving = report(modules, mutants, living, explained)
    print(f"{time.monotonic() - began:.0f} s")
    return 1 if surviving or idle else 0


def judge(
    mutants: Sequence[Mutant],
    explained: Container[Key],
    workers: int,
    first: Sequence[str],
    then: Sequence[str],
) -> list[Mutant]:
    """Those that live by the tests of `first`, in place, and of `then`, from the start.

    What is explained is judged in place alone.
    """
    modules = sorted({mutant.module for mutant in mutants})
    whole = [
        Mutant(module, "", "", "", path_of(module).read_text(), at_import)
        for module in modules
        for at_import in (False, True)
    ]
    quick = Quick([*whole, *mutants], workers)
    run_tests(first, quick)
    alive = set(quick.living)
    if not {mutant for mutant in whole if not mutant.at_import} <= alive:
        raise SystemExit("the quick tests fail without any change")
    # Where not even the same module can be put in the place of itself, no mutant can.
    fixed = {mutant.module for mutant in whole if mutant not in alive}
    alive |= {mutant for mutant in mutants if mutant.at_import and mutant.module in fixed}
    known = {mutant for mutant in alive if mutant.key in explained}
    rest = [whole[0], *(mutant for mutant in mutants if mutant in alive - known)]
    last = set(survivors(from_the_start(then), rest, workers))
    if whole[0] not in last:
        raise SystemExit("the tests fail from the start without any change")
    return [mutant for mutant in mutants if mutant in known | last]


def report(
    modules: Iterable[str],
    mutants: Iterable[Mutant],
    living: Iterable[Mutant],
    explained: Mapping[Key, str],
) -> int:
    """Print the score of each module; how many mutants survive without an explanation."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    alive = {mutant.key for mutant in living}
    for mutant in mutants:
        dead = mutant.key not in alive
        verdict = "killed" if dead else "explained" if mutant.key in explained else "surviving"
        counts[mutant.module][verdict] += 1
    counts["all"] = sum((counts[module] for module in modules), Counter())
    print(f"{'module':20} {'mutants':>9} {'killed':>9} {'explained':>9} {'surviving':>9}")
    for name in (*modules, "all"):
        of = counts[name]
        numbers = (of.total(), of["killed"], of["explained"], of["surviving"])
        print(f"{name:20}", *(f"{number:9}" for number in numbers))
    return counts["all"]["surviving"]


if __name__ == "__main__":
    sys.exit(main())
