"""Pure: workflow documents, their validation and digest, the op catalogue, and the planner."""
