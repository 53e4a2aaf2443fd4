"""The answer to an approval, by a person or because nobody gave one."""

from typing import Any

from perdure.actors import flow
from perdure.actors.draft import Draft
from perdure.actors.failures import fail_attempt
from perdure.definitions.nodes import ApprovalNode
from perdure.events.vocabulary import Error


def decide(draft: Draft, path: str, *, approved: bool, by: str, data: Any = None) -> None:
    """Let an approval go on with an answer, or fail where a rejection counts as one."""
    node, model = draft.state.node(path), draft.plan.node(path).model
    assert node is not None  # noqa: S101 (it waits)
    assert isinstance(model, ApprovalNode)  # noqa: S101 (only approvals are decided)
    output = {"approved": approved, "by": by, "data": data}
    if approved or model.approval.on_reject == "continue":
        flow.complete(draft, path, node.attempt, output)
    else:
        fail_attempt(draft, path, node.attempt, Error("Rejected", f"rejected by {by}" if by else "rejected", output))
