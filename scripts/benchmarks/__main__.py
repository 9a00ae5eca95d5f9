"""`scripts/bench NAME`: finds the benchmark and hands it the other arguments."""

import importlib
import pkgutil
import sys

import scripts.benchmarks as package


def main() -> int:
    names = [m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")]
    wanted = sys.argv[1].replace("-", "_") if len(sys.argv) > 1 else ""
    if wanted not in names:
        print("usage: scripts/bench NAME [options]; NAME is one of:")
        for name in names:
            doc = importlib.import_module(f"{package.__name__}.{name}").__doc__ or ""
            print(f"  {name.replace('_', '-'):12} {doc.splitlines()[0]}")
        return 2
    module = importlib.import_module(f"{package.__name__}.{wanted}")
    return int(module.main(sys.argv[2:]))


if __name__ == "__main__":
    sys.exit(main())
