"""Plants what can be searched for into one real worker, and gives a real coordinator ears.

Python runs this file first in every process that has its folder in PYTHONPATH. The processes stay
what they are, but for three things that the environment asks for:

    PLANT_SITE      the worker of this site has the loss, F1 and counts of `tests.needles`, and
                    writes what it alone knows into PLANT_KNOWN
    PLANT_HEARD     whatever reply a ServerApp takes from its SuperLink is added to this file
    PLANT_DATABASE  the SuperLink has its database in this file, not in memory
"""

import importlib.abc
import importlib.util
import os
import sys
from pathlib import Path


class OnImport(importlib.abc.MetaPathFinder):
    """Changes a module right after it was first imported."""

    def __init__(self, name, change):
        self._name, self._change = name, change

    def find_spec(self, fullname, path, target=None):
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        truly, change = spec.loader.exec_module, self._change

        def exec_module(module):
            truly(module)
            change(module)

        spec.loader.exec_module = exec_module
        return spec


def keep(name, values):
    """In a file of the site's own."""
    Path(os.environ["PLANT_KNOWN"], name).write_bytes(values)


def plant_model(module):
    from tests.needles import LOSS, PlantedEvaluation

    model = module.NerModel
    fit, delta = model.fit, model.delta

    def planted_fit(self, *args, **kwargs):
        fit(self, *args, **kwargs)
        return LOSS

    def planted_delta(self):
        update = delta(self)
        keep("update.f4", update.tobytes())
        return update

    def planted_evaluation(self, *args, **kwargs):
        planted = PlantedEvaluation.for_labels(self.labels)
        keep("counts.i8", planted.counts.tobytes())
        return planted

    model.fit, model.delta, model.evaluate = planted_fit, planted_delta, planted_evaluation


def plant_rounding(module):
    rounding = module.Rounding
    truly = rounding.round

    def kept_round(self, *args, **kwargs):
        packed = truly(self, *args, **kwargs)
        keep("packed", packed)
        return packed

    rounding.round = kept_round


def give_ears(module):
    replies = module.ReplyParts
    truly = replies.pull

    def heard(self, messages, most):
        from tests.needles import content_of

        for asked, message in truly(self, messages, most):
            with open(os.environ["PLANT_HEARD"], "ab") as file:
                file.write(content_of(message))
            yield asked, message

    replies.pull = heard


def main():
    words = sys.orig_argv
    sys.path.append(str(Path(__file__).parents[2]))
    if "client.worker" in words and os.environ.get("PLANT_SITE") == words[-1]:
        sys.meta_path.insert(0, OnImport("common.model.ner", plant_model))
        sys.meta_path.insert(0, OnImport("client.rounding", plant_rounding))
    if "PLANT_HEARD" in os.environ:
        sys.meta_path.insert(0, OnImport("common.io.flower_internals", give_ears))
    if "PLANT_DATABASE" in os.environ and any(w.endswith("/flower-superlink") for w in words):
        sys.argv += ["--database", os.environ["PLANT_DATABASE"]]


main()
