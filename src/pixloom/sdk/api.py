"""What both clients can do: the table of calls."""

from __future__ import annotations

from pixloom.sdk import catalogue_calls, job_calls, job_verbs, workflow_calls
from pixloom.sdk.call import Pages, Unary

__all__ = ["Api"]


class Api:
    """The calls of the API; arguments and results are described at each call.

    `list_…` returns one `Page`, `iter_…` walks over all of them.
    """

    create_workflow = Unary(workflow_calls.create_workflow)
    get_workflow = Unary(workflow_calls.get_workflow)
    list_workflows = Unary(workflow_calls.list_workflows)
    iter_workflows = Pages(workflow_calls.list_workflows)
    update_workflow = Unary(workflow_calls.update_workflow)
    apply_workflow = Unary(workflow_calls.apply_workflow)
    delete_workflow = Unary(workflow_calls.delete_workflow)
    validate_workflow = Unary(workflow_calls.validate_workflow)
    plan_workflow = Unary(workflow_calls.plan_workflow)
    list_workflow_versions = Unary(workflow_calls.list_workflow_versions)
    iter_workflow_versions = Pages(workflow_calls.list_workflow_versions)

    create_job = Unary(job_calls.create_job)
    get_job = Unary(job_calls.get_job)
    list_jobs = Unary(job_calls.list_jobs)
    iter_jobs = Pages(job_calls.list_jobs)
    update_job = Unary(job_calls.update_job)
    delete_job = Unary(job_calls.delete_job)
    get_results = Unary(job_calls.get_results)
    list_nodes = Unary(job_calls.list_nodes)
    list_items = Unary(job_calls.list_items)
    iter_items = Pages(job_calls.list_items)
    list_attempts = Unary(job_calls.list_attempts)
    iter_attempts = Pages(job_calls.list_attempts)

    start_job = Unary(job_verbs.start_job)
    pause_job = Unary(job_verbs.pause_job)
    resume_job = Unary(job_verbs.resume_job)
    cancel_job = Unary(job_verbs.cancel_job)
    recover_job = Unary(job_verbs.recover_job)
    retry_job = Unary(job_verbs.retry_job)
    rerun_job = Unary(job_verbs.rerun_job)
    cancel_all_jobs = Unary(job_verbs.cancel_all_jobs)

    get_op = Unary(catalogue_calls.get_op)
    list_ops = Unary(catalogue_calls.list_ops)
    list_executors = Unary(catalogue_calls.list_executors)
    drain_executor = Unary(catalogue_calls.drain_executor)
    get_artifact = Unary(catalogue_calls.get_artifact)
