"""Every span, metric and attribute name. Renaming one is a breaking change: dashboards and alerts hold on to them."""

from __future__ import annotations

from typing import Final

# Spans.
SPAN_JOB: Final = "pixloom.job"
SPAN_NODE: Final = "pixloom.node"
SPAN_DISPATCH: Final = "pixloom.dispatch"
SPAN_TASK: Final = "pixloom.task"
SPAN_OP: Final = "pixloom.op"
SPAN_REPORT: Final = "pixloom.report"

# Attributes.
ATTR_JOB_ID: Final = "pixloom.job.id"
ATTR_WORKFLOW: Final = "pixloom.workflow"
ATTR_NODE_ID: Final = "pixloom.node.id"
ATTR_OP: Final = "pixloom.op"
ATTR_ATTEMPT: Final = "pixloom.attempt"
ATTR_POOL: Final = "pixloom.pool"
ATTR_ITEMS: Final = "pixloom.items"
ATTR_GENERATION: Final = "pixloom.generation"
ATTR_STATE: Final = "pixloom.state"
ATTR_REASON: Final = "pixloom.reason"
ATTR_TASK_ID: Final = "pixloom.task.id"
ATTR_TASKS: Final = "pixloom.tasks"
ATTR_EXECUTOR_ID: Final = "pixloom.executor.id"
ATTR_DISPATCH_ID: Final = "pixloom.dispatch.id"
# OpenTelemetry semantic conventions for RPC.
ATTR_RPC_SYSTEM: Final = "rpc.system"
ATTR_RPC_SERVICE: Final = "rpc.service"
ATTR_RPC_METHOD: Final = "rpc.method"
ATTR_RPC_CODE: Final = "rpc.grpc.status_code"

# Metrics (Prometheus).
METRIC_JOBS_ENDED: Final = "pixloom_jobs_ended_total"
METRIC_JOBS_ACTIVE: Final = "pixloom_jobs_active"
METRIC_TASKS_ENDED: Final = "pixloom_tasks_ended_total"
METRIC_TASKS_LEASED: Final = "pixloom_tasks_leased"
METRIC_TASKS_READY: Final = "pixloom_tasks_ready"
METRIC_ITEMS: Final = "pixloom_items_total"
METRIC_COMMIT_SECONDS: Final = "pixloom_commit_seconds"
METRIC_COMMIT_ROWS: Final = "pixloom_commit_rows"
METRIC_LOOP_STEP_SECONDS: Final = "pixloom_loop_step_seconds"
METRIC_DISPATCHES: Final = "pixloom_dispatches_total"
METRIC_SESSIONS: Final = "pixloom_sessions"
METRIC_RPC_SECONDS: Final = "pixloom_rpc_seconds"
METRIC_CHILDREN_LOST: Final = "pixloom_children_lost_total"
METRIC_OP_SECONDS: Final = "pixloom_op_seconds"
METRIC_UNACKNOWLEDGED: Final = "pixloom_results_unacknowledged"
METRIC_HTTP_SECONDS: Final = "pixloom_http_seconds"

# Headers.
HEADER_TRACE_ID: Final = "x-trace-id"
