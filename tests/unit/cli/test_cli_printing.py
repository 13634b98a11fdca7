"""What went wrong, said once."""

from controlplane.cli.printing import failure_of
from controlplane.client.errors import ApiError


def refusal(detail: str, *errors: dict[str, str]) -> ApiError:
    problem = {"title": "Conflict", "status": 409, "detail": detail, "reason": "Protected", "errors": list(errors)}
    return ApiError(409, problem)


def test_what_the_detail_says_isnt_repeated_as_its_only_fault() -> None:
    told = failure_of(refusal("a.b/c: is protected", {"path": "/a.b/c", "message": "is protected"}))
    assert (told.message, told.faults) == ("Protected: a.b/c: is protected (409)", ())


def test_faults_that_say_more_are_told_with_their_paths() -> None:
    told = failure_of(refusal("two faults", {"path": "/a", "message": "x"}, {"path": "/b", "message": "y"}))
    assert [fault[0] for fault in told.faults] == ["/a", "/b"]
