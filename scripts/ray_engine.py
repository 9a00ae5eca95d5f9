"""The same simulation on Flower's Ray engine: for several GPUs, or many institutions."""

from functools import cache
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from client.app import Exchange, make_app
from client.session import Session
from common.config.study import Study
from common.errors import UsageError
from common.model.ner import set_threads
from scripts.simulation import Bench
from server.app import run_study
from server.run_dir import RunDir


def simulate_on_ray(study: Study, base: Path, run: RunDir) -> None:
    """Run the study on Ray actors of one CPU each; every actor makes its own sessions.

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

    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        run_study(grid, run)

    def exchange_for(context: Context) -> Exchange:
        return _session(study, base, int(context.node_config["partition-id"])).handle

    run_simulation(
        server_app=server,
        client_app=make_app(exchange_for),
        num_supernodes=len(study.federation.institutions),
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )


@cache
def _session(study: Study, base: Path, index: int) -> Session:
    set_threads(1)
    bench = Bench.of(study, base)
    return bench.session(study.federation.institutions[index], bench.model())
