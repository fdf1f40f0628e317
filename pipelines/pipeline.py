"""The pipeline in the order that data flows; dvc.yaml is its counterpart for one machine."""

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from pemt_core.settings import Settings
from pipelines import steps
from pipelines.cluster import Cluster

NAME = "pemt"


def make_pipeline(settings: Settings, params: str, image: str, *, cache: bool = True) -> BaseComponent:
    """Make the pipeline, whose steps run in `image`. `params`, params.yaml as JSON, is the default of its parameter.

    The other parameters take precedence over `params`; an empty list leaves the value of `params`. Without `cache`,
    every step runs, and the report has the results of this run alone.
    """
    on, tasks = Cluster(settings.kubeflow, image, cache), settings.tasks
    rerun = "" if cache else dsl.PIPELINE_JOB_ID_PLACEHOLDER

    @dsl.pipeline(name=NAME, description="Parameter-efficient multi-task transfer: experts once, then each target")
    def pemt(
        params: str = params,
        recipe: str = settings.recipe,
        sources: list = tasks.sources,
        targets: list = tasks.targets,
        k: list = [],  # noqa: B006  # empty: the recipe's
        seeds: list = [],  # noqa: B006
    ) -> None:
        run = {"params": params, "recipe": recipe, "sources": sources, "targets": targets, "k": k, "seeds": seeds}
        planned = on.run(steps.plan, **run, rerun=rerun).outputs
        reported = on.run(steps.report, **run, rerun=rerun).set_caching_options(False)

        with dsl.ExitHandler(reported):
            data = on.run(steps.prepare, settings=planned["prepare"]).outputs["data"]
            of_backbone = {"settings": planned["backbone"], "tracking": planned["tracking"]}
            backbone = on.run(steps.backbone, data=data, **of_backbone).outputs["backbone"]
            shared = {"data": data, "backbone": backbone}

            with dsl.ParallelFor(planned["source_trainings"], parallelism=on.parallelism) as training:
                source = {"source": training.source, "settings": training.settings, "tracking": planned["tracking"]}
                trained = on.run(steps.train_source, **source, **shared)

            adapters = dsl.Collected(trained.outputs["adapter"])
            collected = {"adapters": adapters, "backbone": backbone}
            experts = on.run(steps.collect_experts, settings=planned["collect_experts"], **collected)
            shared["experts"] = experts.outputs["experts"]

            with dsl.ParallelFor(planned["branches"], parallelism=on.parallelism) as branch:
                runs = {"plan": branch.key, "tracking": planned["tracking"]}
                of_targets = {"targets": branch.targets, **shared}
                transferred = on.run(steps.transfer, settings=branch.transfer, **runs, **shared)
                of_targets["adapters"] = transferred.outputs["adapters"]
                scores = on.run(steps.evaluate, settings=planned["evaluate"], **of_targets).outputs["scores"]
                recorded = on.run(steps.record, settings=planned["record"], scores=scores, **runs).outputs["recorded"]
                on.run(steps.register, settings=planned["register"], recorded=recorded, **runs, **of_targets)

    return pemt
