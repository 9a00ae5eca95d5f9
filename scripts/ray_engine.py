"""The same simulation on Flower's Ray engine: for several GPUs, or many institutions."""

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from client.app import Exchange, make_app
from client.session import Session
from common.config.load import parse_study
from common.config.study import Study
from common.errors import UsageError
from common.model.ner import set_threads
from common.model.running import pick_device
from scripts.simulation import Bench
from server.app import run_study
from server.run_dir import RunDir


def simulate_on_ray(study: Study, base: Path, run: RunDir, device: str) -> None:
    """Run the study on Ray actors of one CPU each, and one GPU each if `device` is one.

    Every actor makes its own sessions.

    Raises:
        UsageError: Ray is not installed.
    """
    try:
        import ray  # noqa: F401
    except ModuleNotFoundError:
        raise UsageError(
            "the Ray engine needs the package ray",
            remedy="pip install 'flwr[simulation]==1.41.0', or leave out --engine ray",
        ) from None
    from flwr.simulation import run_simulation

    on_gpu = pick_device(device).type == "cuda"
    text = json.dumps(asdict(study))
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        run_study(grid, run, home=run.path / "coordinator")

    def exchange_for(context: Context) -> Exchange:
        sites = run.path.absolute() / "sites"
        return _session(text, base, sites, int(context.node_config["partition-id"])).handle

    run_simulation(
        server_app=server,
        client_app=make_app(exchange_for),
        num_supernodes=len(study.federation.institutions),
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": float(on_gpu)}},
    )


@cache
def _session(text: str, base: Path, sites: Path, index: int) -> Session:
    set_threads(1)
    study = parse_study(text, "study")
    bench = Bench.of(study, base)
    name = study.federation.institutions[index]
    return bench.session(name, bench.model(), sites / name)
