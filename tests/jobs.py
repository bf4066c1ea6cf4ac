"""Jobs and containers as an engine fills them in, for tests of what is planned for them."""

from __future__ import annotations

import pytest

from pyrun.cgroups.layout import Cgroup, Group, Hierarchy
from pyrun.plan.job import Job
from pyrun.spec.config import Container
from pyrun.spec.oci import Config
from pyrun.stages import cgroup


def job_of(
    hierarchies: list[Hierarchy] | None = None, groups: list[Group] | None = None, **fields: object
) -> Job:
    """The job of a container c1, with *fields* set. Raises AttributeError for one that a Job has not."""
    job = Job("c1", "c1", Cgroup(hierarchies or [], groups or []))
    for name, value in fields.items():
        setattr(job, name, value)
    return job


def container_of(**fields: object) -> Container:
    """The container n of the image x, in no network, with *fields* set."""
    container = Container("x")
    container.id, container.name, container.hostname = "a" * 64, "n", "h"
    container.keep, container.mode = "/keep", "none"
    for name, value in fields.items():
        setattr(container, name, value)
    return container


def placed(
    hierarchies: list[Hierarchy], config: Config, driver: str = "cgroupfs", *, rootless: bool = False
) -> Cgroup:
    """Where a bundle's container c1 belongs on a host with these hierarchies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cgroup, "layout", lambda: hierarchies)
        return cgroup.place(config, "c1", driver, rootless=rootless)
