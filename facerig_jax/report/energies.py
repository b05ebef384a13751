"""What a fit's trace says, stage by stage, for fit.json and the report page."""

from __future__ import annotations

import jax
import numpy as np

from facerig_jax.report.steps import step_energies
from facerig_jax.types import Descent, Trace

EXPRESSION = "expression stage"


def stages(trace: Trace) -> dict[str, Descent]:
    """Name -> Descent of numpy arrays (T,), in the order of the fit; the last stage, every view's own, (V, T)."""
    found = {"landmark stage": trace.landmarks}
    for name, stacked in (("point stages", trace.correspondences), ("photometric stages", trace.photometric)):
        count = 0 if stacked is None else len(stacked.taken)
        found |= {f"{name} {k + 1}": jax.tree.map(lambda value, k=k: value[k], stacked) for k in range(count)}
    if trace.expression is not None:
        found[EXPRESSION] = trace.expression
    return {name: jax.tree.map(np.asarray, descent) for name, descent in found.items()}


def records(trace: Trace | dict, names, used) -> dict[str, dict]:
    """What fit.json says of every stage.

    Args:
      trace: of a fit of V views.
      names: of the views.
      used: which of them took part.

    Returns:
      name of a stage -> 'before' and 'after', its start and its end under the weights of its last step; 'moved',
      whether a step lowered the energy; 'taken', the damping of each step, None where it stayed. The last stage, where
      every view is fitted alone, has the sums, moved where all views did, and the same for each view under 'views'.
    """
    if isinstance(trace, dict):
        return {
            name: {"before": values[0], "after": values[-1], "moved": bool(values[-1] != values[0]), "taken": None}
            for name, values in curves(trace, names, used).items()
        }
    return {
        name: _of_views(descent, names, used) if name == EXPRESSION else _record(descent)
        for name, descent in stages(trace).items()
    }


def _record(descent: Descent) -> dict:
    return {
        "before": float(descent.start[-1]),
        "after": float(descent.after[-1]),
        "moved": bool(descent.moved),
        "taken": [float(damping) if damping > 0 else None for damping in descent.taken],
    }


def _of_views(descent: Descent, names, used) -> dict:
    each = {
        name: _record(jax.tree.map(lambda value, view=view: value[view], descent))
        for view, name in enumerate(names)
        if used[view]
    }
    total = {key: sum(view[key] for view in each.values()) for key in ("before", "after")}
    taken = {name: view["taken"] for name, view in each.items()}
    return total | {"moved": all(view["moved"] for view in each.values()), "taken": taken, "views": each}


def curves(trace: Trace | dict, names, used) -> dict[str, np.ndarray]:
    """Name -> (T + 1,) energies where each step starts and where the last ends; arguments as for `records`.

    Every step has weights of its own, so what is shown is the end and, before it, how far each step fell.
    """
    if isinstance(trace, dict):
        terms = step_energies(trace)
        return {
            f"stage {k + 1}, {name}": values[k] for k in range(len(terms["total"])) for name, values in terms.items()
        }
    rows = {}
    for name, descent in stages(trace).items():
        falls = np.cumsum((descent.before - descent.after)[..., ::-1], -1)[..., ::-1]
        path = np.asarray(descent.after)[..., -1:] + np.concatenate([falls, np.zeros_like(falls[..., :1])], -1)
        if name != EXPRESSION:
            rows[name] = path
        else:
            rows |= {f"{name}, {names[view]}": path[view] for view in range(len(names)) if used[view]}
    return rows


def stalled(trace: Trace | dict, names, used) -> list[str]:
    """A sentence for every stage that ended where it began although its gradient is not small."""
    if isinstance(trace, dict):
        return []
    sentences = []
    for name, descent in stages(trace).items():
        still = np.asarray(descent.stalled)
        if name == EXPRESSION:
            where = [names[view] for view in range(len(names)) if used[view] and still[view]]
            name = f"{name} of {', '.join(where)}" if where else None
        elif not still:
            name = None
        if name:
            sentences.append(f"The {name} ended where it began: none of its steps lowered the energy.")
    return sentences
