"""Histories by chance, each told by a number, and the shortest one that still goes wrong."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from tests.histories.play import MOMENTS, NODES, History, Step, Told

GRACES = (0, 5, 30, 30, 120, 600, 3600)
STRATEGIES = ("Always", "Always", "RerunOnFailure", "RerunOnFailure", "Manual", "Once", "Halted")
LOSSES = ("cut", "cut", "off", "off", "hang", "mute", "unready", "handlerless", "forget")
CLOCKS = (-20, -20, -5, 5, 60, 180)
WAITS = (0.2, 1, 4, 7, 12, 20, 30, 70)
DISKS = ("", "", "", "", "plain", "restore", "datavolume", "snapshot")


def invent(number: int) -> History:
    """The history of this number: always the same."""
    chance = random.Random(number)
    kind = chance.random()
    if kind < 0.2:
        return tuple(_clear(chance))
    steps = _beginning(chance)
    if kind < 0.45:
        steps += _power_cut(chance)
    elif kind < 0.85:
        steps += _mess(chance)
    else:
        for _ in range(chance.randint(2, 8)):
            steps.append(_event(chance))
    for _ in range(chance.choice((1, 1, 2, 3))):
        steps += [_run(chance, steps)]
        if chance.random() < 0.5:
            steps += [_event(chance) for _ in range(chance.randint(1, 3))]
    return tuple(steps)


def _beginning(chance: random.Random) -> list[Step]:
    steps = []
    web = {
        "name": "web",
        "strategy": chance.choice(STRATEGIES[:-1]),
        "grace": chance.choice(GRACES),
        "obeys": chance.random() < 0.5,
        "sidecar": chance.choice(("", "", "", "plain", "survives")),
        "disks": chance.choice(DISKS),
        "strangers": chance.random() < 0.35,
        "phase_stays": chance.random() < 0.4,
    }
    usual = {"sidecar": "", "disks": "", "strangers": False, "phase_stays": False}
    steps.append(Step.of("vm", **{key: value for key, value in web.items()
                                  if usual.get(key, ...) != value}))  # fmt: skip
    if "disks" in dict(steps[0].arguments) and chance.random() < 0.4:
        shares = Step.of("vm", name="other", node=chance.choice(NODES), strategy="Always", grace=30,
                         uses="web")  # fmt: skip
        steps.append(shares)
    elif chance.random() < 0.2:
        # Both have pods whose label `vm.kubevirt.io/name` says `web`.
        name, hostname = chance.choice((("web.eu", None), ("copy", "web")))
        node = chance.choice(NODES)
        more = {"hostname": hostname} if hostname else {}
        other = Step.of("vm", name=name, node=node, strategy="Always", grace=30, **more)
        steps.insert(chance.choice((0, 1)), other)
    if chance.random() < 0.15:
        steps.append(Step.of("clock", node=_node(chance), minutes=chance.choice(CLOCKS)))
    return steps


def _node(chance: random.Random) -> str:
    return chance.choice(("n1", "n1", "n1", "n2", "n2", "n3"))


def _ending(chance: random.Random) -> Step:
    """What somebody does to the VM."""
    return chance.choice(
        (
            Step.of("stop", name="web"),
            Step.of("stop", name="web"),
            Step.of("delete", name="web"),
            Step.of("delete", name="web", policy="Foreground"),
            Step.of("delete_vmi", name="web"),
            Step.of("evict", name="web"),
            Step.of("restart", name="web"),
        )
    )


def _wait(chance: random.Random) -> Step:
    return Step.of("wait", minutes=chance.choice(WAITS))


def _event(chance: random.Random) -> Step:
    """Anything."""
    node = _node(chance)
    moves = ("done", "done", "failed", "failed", "open", "unseen", "crossed")
    menu: list[tuple[float, Callable[[], Step]]] = [
        (4, lambda: _wait(chance)),
        (3, lambda: Step.of(chance.choice(LOSSES), node=node)),
        (1.5, lambda: Step.of("back", node=node)),
        (0.5, lambda: Step.of("replace", node=node, keeps_pods=chance.random() < 0.4)),
        (0.5, lambda: Step.of("clock", node=node, minutes=chance.choice(CLOCKS))),
        (0.7, lambda: Step.of("jam", node=node)),
        (2, lambda: Step.of("migrate", name="web", to=node, how=chance.choice(moves),
                            hangs=chance.random() < 0.5)),
        (0.5, lambda: Step.of("depart", name="web", how=chance.choice(("open", "moved")))),
        (4, lambda: _ending(chance)),
        (1, lambda: Step.of("end", name="web", how=chance.choice(("shutdown", "crash")))),
        (0.7, lambda: Step.of("force", name="web")),
        (0.7, lambda: Step.of("force", node=node)),
        (1, lambda: Step.of("controllers", works=chance.random() < 0.4)),
        (0.5, lambda: Step.of("veto", on=chance.random() < 0.7)),
    ]  # fmt: skip
    weights = [weight for weight, _ in menu]
    return chance.choices([make for _, make in menu], weights)[0]()


def _power_cut(chance: random.Random) -> list[Step]:
    """A node is lost, with whatever goes before, between and after."""
    steps = []
    if chance.random() < 0.3:
        steps.append(_event(chance))
    lost = Step.of(chance.choice(LOSSES), node="n1")
    acts = [lost, _ending(chance)]
    if chance.random() < 0.3:
        acts.reverse()
    for step in acts:
        steps.append(step)
        if chance.random() < 0.7:
            steps.append(_wait(chance))
    if chance.random() < 0.5:
        steps.append(_event(chance))
    return steps


def _mess(chance: random.Random) -> list[Step]:
    """Several things at once, in any order, with time in between."""
    home = "n1"
    steps = []
    if chance.random() < 0.5:
        how = chance.choice(("failed", "failed", "done", "open", "unseen", "crossed"))
        steps.append(Step.of("migrate", name="web", to="n2", how=how, hangs=chance.random() < 0.7))
        if how in ("done", "crossed"):
            home = "n2"
        if chance.random() < 0.3:
            steps.append(Step.of("migrate", name="web", to="n3", how="failed", hangs=True))
    elif chance.random() < 0.15:
        steps.append(Step.of("depart", name="web", how=chance.choice(("open", "moved"))))
    acts = [_ending(chance)]
    if chance.random() < 0.85:
        acts.append(Step.of(chance.choice(LOSSES), node=home))
    if chance.random() < 0.2:
        acts.append(Step.of(chance.choice(LOSSES), node="n2"))
    if chance.random() < 0.5:
        acts.append(Step.of("force", node=chance.choice((home, home, "n2"))))
    if chance.random() < 0.3:
        acts.append(Step.of("controllers", works=False))
    if chance.random() < 0.15:
        acts.append(Step.of("veto", on=True))
    if chance.random() < 0.2:
        acts.append(Step.of("jam", node=home))
    if chance.random() < 0.25:
        acts.append(Step.of("lifecycle", works=False))
    chance.shuffle(acts)
    for act in acts:
        steps.append(act)
        if chance.random() < 0.5:
            steps.append(_wait(chance))
    end = chance.random()
    if end < 0.35:
        steps += [Step.of("back", node=home), _wait(chance)]
    elif end < 0.45:
        steps += [Step.of("replace", node=home, keeps_pods=chance.random() < 0.5), _wait(chance)]
    return steps


def _clear(chance: random.Random) -> list[Step]:
    """Such as has to be released, or goes by itself.

    An honest power cut, a kubelet that cannot unmount, or controllers that are not there.
    """
    web: dict[str, Any] = {
        "name": "web",
        "strategy": chance.choice(STRATEGIES[:-1]),
        "grace": chance.choice(GRACES),
        "obeys": chance.random() < 0.5,
    }
    if chance.random() < 0.2:
        web["sidecar"] = "plain"
    if chance.random() < 0.4:
        web["phase_stays"] = True
    steps = [Step.of("vm", **web)]
    home = "n1"
    if chance.random() < 0.3:
        how = chance.choice(("done", "failed"))
        home = "n2" if how == "done" else home
        move = Step.of("migrate", name="web", to="n2", how=how, hangs=chance.random() < 0.5)
        steps += [move, Step.of("wait", minutes=1)]
    ending, late = _ending(chance), chance.random() < 0.3
    stated: dict[str, Any] = {}
    kind = chance.random()
    if kind < 0.5:
        stated = {"stated": (home,)}
        steps += [Step.of("off", node=home), Step.of("wait", minutes=7), ending]
    elif kind < 0.75:
        steps += [Step.of("jam", node=home), ending]
    else:
        steps += [Step.of("off", node=home), Step.of("jam", node=home)]
        steps += [Step.of("wait", minutes=7), ending, Step.of("back", node=home)]
    if late:
        steps.append(Step.of("controllers", works=False))
    if late and kind < 0.5 and chance.random() < 0.4:
        steps.append(Step.of("force", node=home))
    steps.append(Step.of("wait", minutes=150))
    steps.append(Step.of("unstick", **stated, **({} if chance.random() < 0.6 else {"fast": False})))
    if chance.random() < 0.3:
        steps += [Step.of("back", node=home), Step.of("wait", minutes=4)]
    return steps


def _run(chance: random.Random, steps: list[Step]) -> Step:
    """A run of the program. Of nodes that were lost the operator mostly says so, true or not."""
    arguments: dict[str, Any] = {}
    lost = sorted({dict(step.arguments)["node"] for step in steps if step.name in LOSSES})
    powered_off = sorted({dict(step.arguments)["node"] for step in steps if step.name == "off"})
    back = {dict(step.arguments)["node"] for step in steps if step.name == "back"}
    word = chance.random()
    if word < 0.55:
        stated = [node for node in powered_off if node not in back]
    elif word < 0.75:
        stated = lost
    elif word < 0.8:
        stated = list(NODES)
    else:
        stated = []
    if stated:
        arguments["stated"] = tuple(stated)
    aim = chance.random()
    if aim < 0.08:
        arguments["targets"] = ("vm", "--all")
    elif aim < 0.12:
        arguments["targets"] = ("vm", "--node", "n1")
    elif aim < 0.2:
        arguments["targets"] = ("vmi", "web")
    flags: tuple[str, ...] = ()
    for flag in (("--override", "past-grace"), ("--override", "no-migration"),
                 ("--override", "disks-kept"), ("--leave-behind", STRANGER)):  # fmt: skip
        if chance.random() < 0.05:
            flags += flag
    if flags:
        arguments["flags"] = flags
    if chance.random() < 0.4:
        arguments["fast"] = False
    if chance.random() < 0.15:
        happening = chance.choice(("back", "beat", "beat", "controllers", "replace"))
        arguments["meanwhile"] = (chance.choice(MOMENTS), happening, _node(chance))
    return Step.of("unstick", **arguments)


STRANGER = "wrangler.cattle.io/harvester-lb-vmi-controller"


def shortest(
    history: History, play: Callable[[History], Told], kind: str, *, tries: int = 200
) -> History:
    """The history without each step and each argument that it needs not to go as wrong."""
    left = tries
    number = 0
    while left and number < 2 * len(history):
        found = False
        for shorter in _shorter(history, number):
            left -= 1
            if any(wrong.kind == kind for wrong in play(shorter).wrong):
                history, found = shorter, True
                break
        number = 0 if found and number >= len(history) else number + (not found)
    return history


def _shorter(history: History, number: int) -> Iterator[History]:
    """What is left without a step, the last ones first; then without arguments of it."""
    at = len(history) - 1 - number % len(history)
    before, step, after = history[:at], history[at], history[at + 1 :]
    if number < len(history):
        yield before + after
        return
    for key, value in step.arguments:
        kept = dict(step.arguments)
        if (step.name, key) in SIMPLE and SIMPLE[step.name, key] != value:
            yield (*before, Step.of(step.name, **(kept | {key: SIMPLE[step.name, key]})), *after)
        elif key in OPTIONAL.get(step.name, ()):
            yield (
                *before,
                Step.of(step.name, **{k: v for k, v in kept.items() if k != key}),
                *after,
            )


SIMPLE = {("vm", "strategy"): "Always", ("vm", "grace"): 30, ("vm", "obeys"): True,
          ("unstick", "targets"): ("vm", "web"), ("wait", "minutes"): 10}  # fmt: skip
OPTIONAL = {
    "vm": {"sidecar", "hostname", "disks", "strangers", "phase_stays", "uses"},
    "unstick": {"stated", "flags", "fast", "meanwhile"},
    "migrate": {"hangs"},
    "replace": {"keeps_pods"},
    "delete": {"policy"},
}


def readable(number: int, history: History, told: Told, alone: Told) -> str:
    """What went wrong, how it came to that, and whether it does so without the program."""
    wrong = "\n".join(f"  {one}" for one in told.wrong)
    steps = "\n".join(f"    {step}," for step in history)
    story = "\n".join(f"  {line}" for line in told.story)
    without = "\n".join(f"  without the program, too: {one}\n" for one in alone.alone)
    return f"history {number}\n{wrong}\n{without}{story}\n  as steps:\n{steps}"
