"""What a request that goes on from an earlier job takes over from it. Pure."""

from collections.abc import Set

from ..contract.call import GenerateRequest
from ..contract.fields import first_step, inherited
from .job import Job


def resumed(request: GenerateRequest, given: Set[str], earlier: Job) -> GenerateRequest:
    """`request`, of which the caller gave `given`, with what it does not say taken from an earlier job."""
    update = {name: getattr(earlier.request, name) for name in inherited() - given}
    update["resume_job_id"] = earlier.id
    update["start_step"] = request.start_step if "start_step" in given else _first_affected(given, earlier)
    return request.model_copy(update=update)


def _first_affected(given: Set[str], earlier: Job) -> int:
    """The first step that a resumed job has to run when the caller did not say."""
    unfinished = earlier.remaining_steps
    return min([unfinished[0] if unfinished else 3, *(first_step(name) for name in given)])
