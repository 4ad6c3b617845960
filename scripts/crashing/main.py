"""The command line of `scripts/crash`."""

from __future__ import annotations

import argparse
import sys
import time

from crashing import cuts, faults, histories
from crashing.kills import PiecemealStore, Setup, Tally, shared

CONTROLS = {
    "a program that acknowledges before the commit": Setup(early=True),
    "a store whose drafts are kept piece by piece": Setup(broken=PiecemealStore, strict=False),
    "a gallery that forgets which erasures it owes": Setup(forgetful=True),
}
WEAK = {
    "synchronous = NORMAL": "NORMAL",
    "synchronous = OFF": "OFF",
}


def main() -> int:
    """0 when nothing was lost, no phantom was seen and nothing had to be repaired, else 1; 2 when
    a negative control found nothing."""
    options = _options()
    begun = time.monotonic()
    if options.histories:
        return histories.report(options.histories, options.seed, broken=options.negative_control)
    if options.faults:
        return faults.report(broken=options.negative_control)
    if options.negative_control:
        return _controls(options)
    if options.cuts:
        tally = cuts.run(options.cuts, options.seed)
        return _close(tally, "cuts", begun)
    tally = shared(options.kills, options.seed, Setup(), options.jobs)
    return _close(tally, "kills", begun)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=300, help="programs to kill (default: 300)")
    parser.add_argument("--cuts", type=int, default=0, help="power cuts to simulate, not kills")
    parser.add_argument("--faults", action="store_true", help="fail every call once, not kills")
    parser.add_argument(
        "--histories", type=int, default=0, help="random corrections and undos, not kills"
    )
    parser.add_argument("--seed", type=int, default=0, help="of all randomness (default: 0)")
    parser.add_argument("--jobs", type=int, default=2, help="galleries at once (default: 2)")
    parser.add_argument(
        "--negative-control",
        action="store_true",
        help="use broken stores instead, to show that they are found out; ends with 1",
    )
    return parser.parse_args()


def _controls(options: argparse.Namespace) -> int:
    """Run every broken store for a share of the kills or cuts."""
    begun, total, blind = time.monotonic(), Tally(), []
    chosen = WEAK if options.cuts else CONTROLS
    count = (options.cuts or options.kills) // len(chosen)
    for name, control in chosen.items():
        if isinstance(control, Setup):
            tally = shared(count, options.seed, control, options.jobs)
        else:
            tally = cuts.run(count, options.seed, weak=control)
        print(f"{name}: {tally.line('cuts' if options.cuts else 'kills')}")
        blind += [name] if tally.good else []
        total.add(tally)
    if blind:
        print(f"not found out: {', '.join(blind)}; take more kills, or mend the harness")
    code = _close(total, "cuts" if options.cuts else "kills", begun)
    return 2 if blind else code


def _close(tally: Tally, what: str, begun: float) -> int:
    """Say what came of it; the last line is the one that scripts read."""
    seconds = time.monotonic() - begun
    for told in tally.told[:20]:
        print(told, file=sys.stderr)
    where = ", ".join(f"{name} {count}" for name, count in tally.during.most_common())
    print(f"{tally.acks} changes acknowledged; {what} during: {where}")
    print(f"{tally.erased} deletions looked after: {tally.residue} left bytes")
    print(f"{seconds:.0f} s, {tally.kills / seconds:.1f} {what} a second")
    print(tally.line(what), flush=True)
    return 0 if tally.good else 1
