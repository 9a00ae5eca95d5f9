"""Ends a SuperNode's wait for a reply that no relay will give.

A node of Flower 1.41 takes one message at a time, and waits for its reply, then for the parts of
that, without a limit. A relay that dies is noticed by its heartbeats, and answered for with an
error. It is not, and the node then is alive for the coordinator and takes no message any more,
where

    - it dies after it has taken its task, and before it has taken the message;
    - it dies after it has handed over a reply's head, and before all of its parts;
    - its task ends with an error before it has the message.

Guarantee: once no task of the node is under way, its wait ends: with an error in the relay's place
or, where a reply's head is on its way already, without the rest, which the coordinator asks for
again.
"""

import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

PACE_S: Final = 1.0


class LostReplyError(Exception):
    """The rest of a reply does not come."""


class LostTasks:
    """Watches over one wait.

    Args:
        state: the node's, of Flower.
        clock: in seconds, never set back.
    """

    def __init__(self, state: Any, clock: Callable[[], float] = time.monotonic):
        self._state, self._clock = state, clock
        self._due = clock() + PACE_S
        self._was_over = False

    def look(self) -> None:
        """To be called again and again during the wait, each time before the store is looked at.

        Raises:
            LostReplyError: a reply has begun to leave whose parts do not come.
        """
        if self._clock() < self._due:
            return
        self._due = self._clock() + PACE_S
        if not self._is_over():
            return
        with self._state.lock_msg_store:
            entries = list(self._state.msg_store.values())
            replies = [entry for entry in entries if entry.message.metadata.reply_to_message_id]
            if not replies:
                self._answer(entries)
                return
        leaves = all(entry.is_retrieved for entry in replies)
        if leaves and self._was_over:  # so the store was looked at since the last task ended
            raise LostReplyError("the relay ended before it had handed over its whole reply")
        self._was_over = leaves

    def _is_over(self) -> bool:
        status: Any = import_module("flwr.common.constant").Status
        under_way = (status.PENDING, status.STARTING, status.RUNNING)
        return not self._state.get_tasks(statuses=under_way)

    def _answer(self, entries: list[Any]) -> None:
        """An error for each message; none is given to another relay."""
        nodestate: Any = import_module("flwr.supernode.nodestate.in_memory_nodestate")
        for entry in entries:
            if not entry.is_retrieved:
                entry.is_retrieved = True
                self._state.record_message_processing_start(entry.message.metadata.message_id)
        runs = {entry.message.metadata.run_id for entry in entries}
        self._state._store_error_replies(runs, nodestate.CLIENT_APP_CRASHED_ERROR)
